package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// form is a packed form of an artefact, as the node takes it.
type form struct {
	release.Form
	file     string   // its name beside the manifest
	unpacked int64    // bytes that the manifest says; 0: it does not
	last     bool     // no other form is tried after it
	lastFile bool     // nor another file: the host is given time until it has this one
	others   []string // SHA-256 of the other files, of which an earlier attempt may have left some
}

// zstdMemory is what must be free for the zstd form: its decoder keeps a window of
// release.MaxZstdWindow, and some blocks. With less the tarball is taken.
const zstdMemory = 64 << 20

// forms returns the forms of a in the order in which they are tried. The last one is the
// tarball without chunks, which every release has: what is wrong with the others costs time.
func (s *Stager) forms(rel verify.Release, a release.Artefact) ([]form, error) {
	list, wrong := a.Forms()
	for _, err := range wrong {
		s.note("%v (%s): it is not used", err, release.ManifestInvalid)
	}
	var forms []form
	for i, f := range list {
		name, err := s.fileOf(rel, release.Artefact{URL: f.URL})
		last := i == len(list)-1
		switch {
		case err != nil && last:
			return nil, err
		case err != nil:
			s.note("format %s of the release: %v (%s): it is not used", f.Format, err, release.CodeOf(err))
			continue
		case f.Format == release.FormatZstd && freeMemory() < zstdMemory:
			s.note("format %s of the release: fewer than %d MiB of memory are free: it is not used", f.Format, zstdMemory>>20)
			continue
		}
		forms = append(forms, form{Form: f, file: name, unpacked: a.UnpackedSize, lastFile: last})
		if last && f.Chunks != nil {
			f.Chunks = nil
			forms = append(forms, form{Form: f, file: name, unpacked: a.UnpackedSize, lastFile: last})
		}
	}
	forms[len(forms)-1].last = true
	if exists(s.plainMark(a.SHA256)) {
		return forms[len(forms)-1:], nil
	}
	forms = s.resumable(forms)
	for i, f := range forms {
		for _, o := range forms {
			if o.SHA256 != f.SHA256 && !slices.Contains(f.others, o.SHA256) {
				forms[i].others = append(forms[i].others, o.SHA256)
			}
		}
	}
	return forms, nil
}

// resumable returns the forms of the tarball alone, if an earlier attempt left so much of it
// that less is missing than of each other form: there was too little memory for those, or they
// were wrong.
func (s *Stager) resumable(forms []form) []form {
	left := func(f form) int64 {
		st, err := os.Lstat(s.Layout.Download(f.SHA256))
		if err != nil || !st.Mode().IsRegular() {
			return 0
		}
		return min(st.Size(), f.Size)
	}
	tarball := forms[len(forms)-1]
	here := left(tarball)
	nearer := func(f form) bool { return !f.lastFile && f.Size-left(f) <= tarball.Size-here }
	if here == 0 || slices.ContainsFunc(forms, nearer) {
		return forms
	}
	return slices.DeleteFunc(forms, func(f form) bool { return !f.lastFile })
}

// plainMark is the directory that remembers, over a restart, that a form of a release was wrong, so that
// only the tarball is taken, by its own digest: the others would be downloaded again and again.
func (s *Stager) plainMark(tarball string) string { return s.Layout.Download(tarball + ".plain") }

// removeOthers removes what earlier attempts left of the other forms.
func (s *Stager) removeOthers(f form) {
	for _, sum := range f.others {
		if path := s.Layout.Download(sum); exists(path) {
			s.Layout.Disk().Discard(path)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (s *Stager) note(format string, args ...any) {
	if s.Note != nil {
		s.Note(fmt.Sprintf(format, args...))
	}
}

// takeOne downloads and unpacks the first of forms that is right, and returns the digest of
// the record. It calls downloaded once.
func (s *Stager) takeOne(ctx context.Context, src Source, v release.Version, forms []form, downloaded func()) (f form, record string, err error) {
	downloaded = sync.OnceFunc(downloaded)
	for i, f := range forms {
		record, err = s.take(ctx, src, v, f, downloaded)
		if err == nil && !f.lastFile {
			err = s.checkProgram(s.Layout.Partial(v))
		}
		if err == nil {
			return f, record, nil
		}
		if !interrupted(ctx) {
			s.Layout.Disk().Discard(s.Layout.Partial(v))
		}
		if f.last || ctx.Err() != nil {
			return f, "", err
		}
		next := forms[i+1]
		if fits := isCode(err, release.DiskFull) && next.Size < f.Size; !f.faulty(err) && !fits {
			return f, "", err
		}
		if next.SHA256 != f.SHA256 && !isCode(err, release.NetworkError) { // what is verified of it may be resumed
			s.Layout.Disk().Discard(s.Layout.Download(f.SHA256))
		}
		if f.faulty(err) && !isCode(err, release.NetworkError) {
			s.Layout.Disk().Mkdir(s.plainMark(forms[len(forms)-1].SHA256), 0o700) // without it, only time is lost
		}
		s.note("%s: %v (%s): taking %s instead", f.says(), err, release.CodeOf(err), next.says())
	}
	return f, "", errors.New("stage: there is no form")
}

// interrupted reports whether ctx has ended, and the next staging goes on: what is unpacked
// stays with the download. A command that was withdrawn does not come again.
func interrupted(ctx context.Context) bool {
	return ctx.Err() != nil && !isCode(context.Cause(ctx), release.Withdrawn)
}

// take downloads the form f, and unpacks it into the directory of a partial version, which
// stays after an error. With chunks it does both at once: what is unpacked is verified, and
// the whole is before take returns.
func (s *Stager) take(ctx context.Context, src Source, v release.Version, f form, downloaded func()) (record string, err error) {
	d, err := s.openDownload(f, src)
	if err != nil {
		return "", err
	}
	defer d.close()
	partial := s.Layout.Partial(v)
	if err := d.room(ctx, partial); err != nil {
		return "", err
	}
	downloading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var complete atomic.Bool
	result := make(chan error, 1)
	unpack := func() {
		var err error
		if record, err = s.unpackTo(ctx, partial, d, &complete); err != nil {
			stop(err)
		}
		result <- err
	}
	if d.chunks != nil {
		d.stream = newStream(d.f.File, f.Size)
		go unpack()
	}
	err = s.download(downloading, src, d)
	failed := downloading.Err() != nil && ctx.Err() == nil // what unpacks did, and stopped the download
	switch {
	case err == nil:
		complete.Store(true)
		downloaded()
		if d.chunks == nil {
			d.stream = newStream(d.f.File, d.have)
			d.stream.verify(d.have)
			go unpack()
		}
		d.stream.end(errDownloaded)
		err = d.unpackFault(<-result)
	case d.chunks != nil:
		d.stream.end(err)
		if e := <-result; failed {
			err = d.unpackFault(e)
		}
	}
	if err != nil && (failed || complete.Load()) {
		s.spend(ctx, f, err)
	}
	return record, err
}

// unpackTo unpacks d into the directory dir. What is there is used again only if the download
// began earlier, too: then it is of the same tarball.
func (s *Stager) unpackTo(ctx context.Context, dir string, d *download, complete *atomic.Bool) (record string, err error) {
	disk := s.Layout.Disk()
	st, err := os.Lstat(dir)
	replaced := exists(filepath.Join(dir, Marker)) // old files of a version: a process may use them
	again := d.began && err == nil && st.IsDir() && own(st) && !replaced && disk.Chmod(dir, 0o755) == nil
	if !again {
		if err := disk.Discard(dir); err != nil {
			return "", err
		}
		if err := disk.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	size := d.stream.size
	return s.extract(ctx, d.stream, dir, packing{format: d.form.Format, size: size, unpacked: d.form.unpacked, again: again, progress: func(n int64) {
		if complete.Load() { // until then the download tells how far it is
			s.Progress(PhaseExtract, n, size)
		}
	}})
}

// faulty reports whether err is one of f itself, so that another form may be right.
func (f form) faulty(err error) bool {
	if f.Format == release.FormatGzip { // the other form is the same file, without its chunks
		return isCode(err, release.ChecksumMismatch)
	}
	if errors.As(err, new(unreachable)) { // the other one would be, too
		return false
	}
	return errors.As(err, new(notRead)) || errors.Is(err, fs.ErrNotExist) ||
		slices.Contains([]release.Code{release.NetworkError, release.ChecksumMismatch, release.ExtractFailed, release.ManifestInvalid}, release.CodeOf(err))
}

// says names f for people.
func (f form) says() string {
	if f.Chunks != nil {
		return f.file + " by its chunks"
	}
	return f.file
}

func isCode(err error, code release.Code) bool {
	var e *release.Error
	return errors.As(err, &e) && e.Code == code
}
