// Package stage turns a verified release into a complete directory under versions/, and
// swaps the links to it.
//
// After a crash a version is complete or absent: it is extracted into
// versions/.partial-X, synced, checked by running it, and only then renamed. A
// refused or failed release leaves at most a download that can be resumed, with a
// name that marks it as unverified; a staging that was interrupted also what it unpacked,
// which the next one compares and need not write again.
//
// Everything from a release host is hostile until the signed manifest proves it, and
// bounded before it is read. Memory does not grow with the size of a release. The
// package does not decide whether the node wants a release, or whether it is healthy.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// Phases of staging, as Progress names them.
const (
	PhaseVerify   = "verify"
	PhaseDownload = "download"
	PhaseExtract  = "extract"
	PhaseCheck    = "check"
)

// Trust is what a Stager trusts, and where releases are; verify.Trust is one.
type Trust interface {
	// Release verifies a manifest of the release host.
	Release(manifest, bundle []byte) (verify.Release, error)
	// Signers are the rows of the allowlist.
	Signers() []verify.Signer
	// FetchURLs are the URLs below which the files of v may be, one for each name of the
	// repository.
	FetchURLs(v release.Version) []string
	// ReleaseCA is the only CA (PEM) of the release host, or nil for the system's.
	ReleaseCA() []byte
}

// Config says where and how to stage. Layout, Trust and Binary are required.
type Config struct {
	Layout state.Layout
	Trust  Trust
	// Binary is the service's program, relative to a version's directory.
	Binary string
	// NoRun omits the self-check, which runs `<binary> version`: an attached service need
	// not know that command.
	NoRun bool
	// Renew, if set, returns the trust that the files beside a release prove. Fetch calls
	// it when Trust does not verify a signature. See verify.Renew.
	Renew func(ctx context.Context, beside fs.FS) (Trust, error)
	// KeepVersions is how many versions may be installed once a release is staged. Before
	// Stage checks the free space it removes versions that nothing needs (see Prune),
	// and more of them if the release does not fit otherwise. 0 removes none.
	KeepVersions int
	// Running is the version of this process, which is never removed; zero: the one that
	// current points to.
	Running release.Version
	// Progress, if set, receives how far staging is; total is 0 while it is not known. It
	// must return quickly.
	Progress func(phase string, done, total int64)
	// Note, if set, receives what an operator may have to know about the network.
	Note func(text string)

	// Proxy returns the proxy of a request; nil means HTTPS_PROXY and NO_PROXY of the
	// environment.
	Proxy func(*http.Request) (*url.URL, error)
	// MaxBandwidth of the download, in bytes a second; 0 is no limit.
	MaxBandwidth int64
	// AllowPrivate lets the release host redirect to private addresses.
	AllowPrivate bool
	// Now is the clock for the certificates of hosts; nil means the device's. Nothing else
	// reads a clock.
	Now func() time.Time

	// These have defaults; tests shorten them.
	Tries        int           // of each fetch that fails for a passing reason, at least; default 6. See Patience
	FirstPause   time.Duration // before the second try, growing up to MaxPause; default 1 s
	MaxPause     time.Duration // default 5 min
	MissingFor   time.Duration // for which a file is looked for that the host does not have; default DefaultMissingFor
	StallTimeout time.Duration // without a byte; default 30 s
	Check        Limits        // of the self-check; default DefaultLimits
}

// DefaultMissingFor is Config.MissingFor. A portal, a proxy or a host that is being deployed
// answers 404 for some minutes as well, and what the fetch waits for is shown from the first
// answer on; yet a version that does not exist must not keep a node busy for a day.
const DefaultMissingFor = 15 * time.Minute

// Stager stages releases, one at a time.
type Stager struct {
	Config
	client   *client
	effort   *effort
	freeing  <-chan struct{}                  // closed when the space of the last download is free
	fromDisk func(*os.File) (fromDisk, error) // a test's disk may be memory
}

// New returns a Stager.
func New(c Config) (*Stager, error) {
	if c.Binary == "" || !filepath.IsLocal(c.Binary) {
		return nil, fmt.Errorf("stage: binary %q is not a path inside a version's directory", c.Binary)
	}
	if c.Trust == nil {
		return nil, errors.New("stage: no trust is configured")
	}
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Tries == 0 {
		c.Tries = 6
	}
	def(&c.FirstPause, time.Second)
	def(&c.MaxPause, 5*time.Minute)
	def(&c.MissingFor, DefaultMissingFor)
	def(&c.StallTimeout, 30*time.Second)
	def(&c.Check.CPU, DefaultLimits.CPU)
	def(&c.Check.Wall, DefaultLimits.Wall)

	client, err := newClient(c)
	if err != nil {
		return nil, err
	}
	s := &Stager{Config: c, client: client, fromDisk: readFromDisk}
	s.SetPatience(Patience{})
	return s, nil
}

// fetch is Fetch of one name.
func (s *Stager) fetch(ctx context.Context, src Source) (_ verify.Release, err error) {
	defer func() { err = withDiskFull(err) }() // Renew writes a trust root
	s.Progress(PhaseVerify, 0, 0)
	file := func(f smallFile) ([]byte, error) { return s.read(ctx, src, f) }
	manifest, err := file(manifestFile)
	if err != nil {
		return verify.Release{}, err
	}
	bundle, err := file(bundleFile)
	if err != nil {
		return verify.Release{}, err
	}
	rel, err := s.Trust.Release(manifest, bundle)
	var coded *release.Error
	if s.Renew == nil || !errors.As(err, &coded) || coded.Code != release.RekorInvalid && coded.Code != release.SignatureInvalid {
		return rel, err
	}
	// Logs and authorities change their keys. The release may come with the new ones: then
	// it is verified once more.
	trust, renewErr := s.Renew(ctx, beside(file))
	if renewErr != nil {
		if !errors.Is(renewErr, fs.ErrNotExist) {
			err = release.Errorf(coded.Code, "%w; and the trust root beside the release is not accepted: %w", errors.Unwrap(err), renewErr)
		}
		return rel, err
	}
	s.Trust = trust
	return trust.Release(manifest, bundle)
}

// beside are the files of a release as Renew reads them.
type beside func(smallFile) ([]byte, error)

func (b beside) Open(name string) (fs.File, error) {
	data, err := b(smallFile{name: name, limit: verify.MaxRoot, tooLarge: release.SignatureInvalid, optional: true})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fsutil.MemFile(data), nil
}

// Stage makes the directory of rel from the artefact a of its manifest, whose
// tarball it reads from src. It calls downloaded once the tarball is complete
// and has the signed digest. If there is space enough, that of the tarball is free only when the
// release was swapped, shelved or installed. A version that is already installed from the same
// tarball is not made again.
func (s *Stager) Stage(ctx context.Context, src Source, rel verify.Release, a release.Artefact, downloaded func()) (_ Staged, err error) {
	defer func() { err = withDiskFull(err) }()
	if !rel.OK() {
		return Staged{}, release.Errorf(release.Internal, "stage: the release was not verified")
	}
	v := rel.Manifest().Version
	disk := s.Layout.Disk()
	await(s.freeing)
	if err := s.Layout.Make(); err != nil {
		return Staged{}, err
	}
	// A program that is just starting may still hold the lock for an instant.
	unlock, err := lockStaging(ctx, s.Layout, time.Second)
	if errors.Is(err, fsutil.ErrLocked) {
		return Staged{}, release.Errorf(release.InProgress, "another process is staging a release: %w", err)
	}
	if err != nil {
		return Staged{}, release.Errorf(release.Internal, "lock staging: %w", err)
	}
	defer unlock()

	forms, err := s.forms(rel, a)
	if err != nil {
		return Staged{}, err
	}
	partial, mark := s.Layout.Partial(v), s.plainMark(a.SHA256)
	s.removeLeftovers(ctx, func(dir string) bool { return dir == filepath.Base(partial) }, func(download string) bool {
		return download == filepath.Base(mark) ||
			slices.ContainsFunc(forms, func(f form) bool { return download == filepath.Base(s.Layout.Download(f.SHA256)) })
	})
	tree, err := s.Layout.Tree()
	if err != nil {
		return Staged{}, err
	}
	if m, err := readMarker(s.Layout, v); err == nil && m.SHA256 == a.SHA256 && tree.Has(v) && intact(ctx, s.Layout, v) {
		downloaded()
		s.discard(ctx, partial)
		if err := s.selfCheck(ctx, s.Layout.Version(v)); err != nil {
			return Staged{}, err
		}
		if err := s.republished(m, rel); err != nil {
			return Staged{}, err
		}
		return Staged{rel: rel}, nil
	}
	if err := s.replaceable(ctx, v); err != nil {
		return Staged{}, err
	}
	if dir := s.Layout.Versions(); !s.NoRun && fsutil.NoExec(dir) {
		return Staged{}, release.Errorf(release.ExtractFailed, "no release can run here: %s", fsutil.Denied(dir, fsutil.Execute))
	}
	s.pruneFor(ctx, v)
	signerFirst(src, rel)
	f, record, err := s.takeOne(ctx, src, v, forms, downloaded)
	if err == nil || ctx.Err() == nil && !ofDevice(err) && !isCode(err, release.NetworkError) {
		s.removeOthers(f)
		disk.Discard(mark)
	}
	if err != nil {
		return Staged{}, err
	}
	if err := s.finish(ctx, rel, a, record); err != nil {
		if !interrupted(ctx) {
			disk.Discard(partial)
		}
		s.spend(ctx, f, err)
		return Staged{}, err
	}
	if s.freeing, err = s.remove(s.Layout.Download(f.SHA256)); err != nil {
		return Staged{}, err
	}
	return Staged{rel: rel, freed: s.freeing}, nil
}

// spend removes a download that has the signed digest and could not be made a version:
// unless this device was at fault, or the staging was stopped, another attempt would fail
// again.
func (s *Stager) spend(ctx context.Context, f form, err error) {
	if ctx.Err() == nil && !ofDevice(err) {
		s.Layout.Disk().Discard(s.Layout.Download(f.SHA256))
	}
}

// finish checks and promotes the partial directory of rel, whose files have that record.
func (s *Stager) finish(ctx context.Context, rel verify.Release, a release.Artefact, record string) error {
	v := rel.Manifest().Version
	dir := s.Layout.Partial(v)
	if err := s.selfCheck(ctx, dir); err != nil {
		return err
	}
	made := marker{Version: v, SHA256: a.SHA256, Program: s.Binary, Record: record}.of(rel)
	if err := made.write(s.Layout.Disk(), dir); err != nil {
		return err
	}
	return s.promote(ctx, v, dir)
}

// Tidy removes what a crash left behind: partial directories and temporary files. It
// keeps downloads, which can be resumed, and with them what was unpacked; the next Stage
// removes all but its own. It does nothing while a release is being staged.
func (s *Stager) Tidy(ctx context.Context) error {
	if _, err := os.Lstat(s.Layout.Downloads()); errors.Is(err, fs.ErrNotExist) {
		return s.Layout.Sweep(ctx) // nothing was ever staged here
	}
	unlock, err := lockStaging(ctx, s.Layout, 100*time.Millisecond)
	if errors.Is(err, fsutil.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	unverified := func(download string) bool { return strings.HasSuffix(download, state.UnverifiedSuffix) }
	downloads, _ := os.ReadDir(s.Layout.Downloads())
	began := slices.ContainsFunc(downloads, func(e fs.DirEntry) bool {
		info, err := e.Info()
		return err == nil && info.Size() > 0 && unverified(e.Name())
	})
	s.removeLeftovers(ctx, func(dir string) bool {
		// The old files of a version that was replaced have a marker.
		return began && !exists(filepath.Join(s.Layout.Versions(), dir, Marker)) && state.IsPartial(dir)
	}, unverified)
	return s.Layout.Sweep(ctx)
}

// removeLeftovers removes partial directories for which resume returns false, the rest of
// versions that were being removed, and the downloads for which keep returns false. It leaves
// a directory that a process uses. Leftovers are harmless, so errors are ignored.
func (s *Stager) removeLeftovers(ctx context.Context, resume, keep func(name string) bool) {
	l := s.Layout
	sweep := func(dir string, remove func(path string), old func(name string) bool) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return
		}
		for _, e := range entries {
			if old(e.Name()) {
				remove(filepath.Join(dir, e.Name()))
			}
		}
	}
	sweep(l.Versions(), func(dir string) { s.discard(ctx, dir) }, func(name string) bool { return strings.HasPrefix(name, state.PartialPrefix) && !resume(name) })
	sweep(l.Downloads(), func(path string) { l.Disk().Discard(path) }, func(name string) bool { return name != filepath.Base(s.Layout.StagingLock()) && !keep(name) })
	l.FinishRemovals()
}

// withDiskFull gives an error that means "no space" the code disk_full.
func withDiskFull(err error) error {
	if fsutil.IsNoSpace(err) && !isCode(err, release.DiskFull) && !errors.Is(err, state.ErrReportsPending) {
		return release.Errorf(release.DiskFull, "the disk is full: %w", err)
	}
	return err
}
