// Package fakerelease makes signed releases, good and bad, and serves them as GitHub
// does. Only a simulation build of the agent trusts them.
//
// All files are in one directory:
//
//	sigstore/   the private keys of a fakesig instance
//	trust/      the trust root and the signers of a simulation build of the agent
//	www/OWNER/REPO/releases/download/vX.Y.Z/{manifest.json,manifest.sig.bundle,*.tar.gz}
//
// A release is complete or absent. Tarballs are reproducible: the same inputs
// give the same bytes.
package fakerelease

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/internal/pack"
	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
)

// DefaultRepository and Workflow are the source of the fake releases.
const (
	DefaultRepository = "acme/edge"
	Workflow          = ".github/workflows/release.yml"
	commit            = "0123456789abcdef0123456789abcdef01234567"
)

// Options describes a release to publish. Version and Binary are required.
type Options struct {
	Repository     string // OWNER/REPO; default DefaultRepository
	DeviceType     string // default "edge"
	Version        string
	Channel        string // default "stable"
	Variant        string // default "default"
	Arch           string // default: the one of this machine
	Sequence       uint64 // default: one more than the highest in the repository
	RollbackFloor  string
	Commands       []string          // that the manifest declares
	FirstStartSecs int               // of the manifest
	Binary         string            // path of the program
	BinaryName     string            // its name in the tarball; default "edge-agent"
	Extra          map[string]string // more files: name in the tarball -> path
	PadBytes       int64             // bytes of an extra file that does not compress
	PadFiles       int               // in how many files; default 1
	Fault          Fault
	RekorV2        bool      // sign with Rekor v2 and a timestamp authority
	SignedAt       time.Time // default: now
	// Formats are the formats beside the tarball, such as release.FormatZstd; Chunks gives
	// the manifest the chunks of every file.
	Formats []string
	Chunks  bool
	// Once refuses a version that is published already, with ErrPublished.
	Once bool
}

// Published describes a published release.
type Published struct {
	Version  string `json:"version"`
	Dir      string `json:"dir"`
	Tarball  string `json:"tarball"`
	SHA256   string `json:"sha256"` // in the manifest
	Size     int64  `json:"size"`
	Unpacked int64  `json:"unpacked_size"`
	Sequence uint64 `json:"sequence"`
	TrustDir string `json:"trust_dir"`
}

var repositories = regexp.MustCompile(`^[A-Za-z0-9-]{1,39}/[A-Za-z0-9._-]{1,100}$`)

func (o *Options) defaults() error {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&o.Repository, DefaultRepository)
	def(&o.DeviceType, "edge")
	def(&o.Channel, release.DefaultChannel)
	def(&o.Variant, release.DefaultVariant)
	def(&o.Arch, release.HostArch())
	def(&o.BinaryName, "edge-agent")
	if o.SignedAt.IsZero() {
		o.SignedAt = time.Now()
	}
	if _, err := release.ParseVersion(o.Version); err != nil {
		return err
	}
	if !repositories.MatchString(o.Repository) {
		return fmt.Errorf("repository %q is not OWNER/REPO", o.Repository)
	}
	if o.Binary == "" {
		return errors.New("the program is missing")
	}
	if o.Fault == BadChecksum || o.Fault == Truncated { // another form would be right
		o.Formats, o.Chunks = nil, false
	}
	return o.Fault.check()
}

func releasesDir(dir, repository string) string {
	return filepath.Join(dir, "www", filepath.FromSlash(repository), "releases", "download")
}

// ErrPublished is the error of Options.Once.
var ErrPublished = errors.New("this version is published already")

// Published reports whether dir has the version of o.
func (o Options) Published(dir string) (bool, error) {
	if err := o.defaults(); err != nil {
		return false, err
	}
	_, err := os.Lstat(o.dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (o Options) dir(dir string) string {
	return filepath.Join(releasesDir(dir, o.Repository), "v"+o.Version)
}

// Publish makes a release and moves it into dir. It replaces a release of the same
// version, unless o.Once. After a failure the old release is unchanged or absent, never partial.
func Publish(dir string, o Options) (Published, error) {
	p, err := publish(dir, o)
	if err != nil {
		return Published{}, fmt.Errorf("publish %s: %w", o.Version, err)
	}
	return p, nil
}

func publish(dir string, o Options) (Published, error) {
	if err := o.defaults(); err != nil {
		return Published{}, err
	}
	if o.Once {
		if have, err := o.Published(dir); have || err != nil {
			return Published{}, cmp.Or(err, ErrPublished)
		}
	}
	sig, err := fakesig.Ensure(filepath.Join(dir, "sigstore"))
	if err != nil {
		return Published{}, err
	}
	all := releasesDir(dir, o.Repository)
	if err := os.MkdirAll(all, 0o755); err != nil {
		return Published{}, err
	}
	tmp, err := os.MkdirTemp(all, ".making-")
	if err != nil {
		return Published{}, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return Published{}, err
	}
	name := fmt.Sprintf("%s-%s-%s-%s.tar.gz", path.Base(o.Repository), o.Version, o.Arch, o.Variant)
	tarball := filepath.Join(tmp, name)
	p, err := o.tarball(tarball)
	if err != nil {
		return Published{}, err
	}
	p.Version, p.Tarball, p.Sequence = o.Version, name, o.Sequence
	if p.Sequence == 0 {
		if p.Sequence, err = nextSequence(dir, o.Repository); err != nil {
			return Published{}, err
		}
	}
	manifest, err := o.manifest(p, name, tmp)
	if err != nil {
		return Published{}, err
	}
	bundle, err := o.sign(sig, manifest)
	if err != nil {
		return Published{}, err
	}
	for n, b := range map[string][]byte{release.ManifestName: manifest, release.BundleName: bundle} {
		if err := os.WriteFile(filepath.Join(tmp, n), b, 0o644); err != nil {
			return Published{}, err
		}
	}
	p.Dir = o.dir(dir)
	if !o.Once {
		if err := os.RemoveAll(p.Dir); err != nil {
			return Published{}, err
		}
	}
	if err := os.Rename(tmp, p.Dir); err != nil { // another program may have published it meanwhile
		if o.Once && (errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY)) {
			err = ErrPublished
		}
		return Published{}, err
	}
	p.TrustDir = TrustDir(dir)
	return p, trust(dir, o.Repository, sig)
}

func (o Options) manifest(p Published, name, dir string) ([]byte, error) {
	m := release.Manifest{
		Version: release.MustVersion(o.Version), DeviceType: o.DeviceType, Channel: o.Channel,
		ReleasedAt: o.SignedAt.UTC().Truncate(time.Second), Sequence: p.Sequence,
		Commands: o.Commands, FirstStartSecs: o.FirstStartSecs,
	}
	if o.RollbackFloor != "" {
		v, err := release.ParseVersion(o.RollbackFloor)
		if err != nil {
			return nil, fmt.Errorf("rollback floor: %w", err)
		}
		m.RollbackFloor = v
	}
	m.Artefacts = []release.Artefact{{
		Arch: o.Arch, Variant: o.Variant, SHA256: p.SHA256, Size: p.Size, UnpackedSize: p.Unpacked,
		URL: release.BaseURL("https://github.com/"+o.Repository, m.Version) + "/" + name,
	}}
	b, _, err := pack.Complete(m, dir, o.Formats, o.Chunks)
	if err != nil {
		return nil, err
	}
	_, err = release.Parse(b)
	return b, err
}

func (o Options) sign(sig *fakesig.Instance, manifest []byte) ([]byte, error) {
	repo := o.Repository
	if o.Fault == WrongIdentity {
		_, name, _ := strings.Cut(repo, "/")
		repo = "mallory/" + name
	}
	return sig.Sign(manifest, fakesig.GitHub(repo, Workflow, "refs/tags/v"+o.Version, commit), o.SignedAt, fakesig.Opt{
		RekorV2: o.RekorV2, NoLog: o.Fault == NoLogEntry, BadSignature: o.Fault == BadSignature,
	})
}

// tarball writes the archive, and returns its digest and sizes for the manifest.
func (o Options) tarball(to string) (Published, error) {
	files, err := o.files()
	if err != nil {
		return Published{}, err
	}
	unpacked, err := writeTarball(to, files, append([]string{release.FormatGzip}, o.Formats...))
	if err != nil {
		return Published{}, err
	}
	st, err := os.Stat(to)
	if err != nil {
		return Published{}, err
	}
	if o.Fault == Truncated {
		if err := os.Truncate(to, st.Size()/2); err != nil {
			return Published{}, err
		}
	}
	sum, size, err := pack.Digest(to)
	if err != nil {
		return Published{}, err
	}
	if o.Fault == BadChecksum {
		sum = strings.Repeat("0", 8) + sum[8:]
	}
	return Published{SHA256: sum, Size: size, Unpacked: unpacked}, nil
}

// files returns the entries of the tarball, sorted by name.
func (o Options) files() ([]file, error) {
	bin, err := fileAt(o.BinaryName, o.Binary)
	if err != nil {
		return nil, err
	}
	bin.mode = 0o755
	switch o.Fault {
	case NotExecutable:
		bin.mode = 0o644
	case WrongArch:
		bin.patch, err = otherMachine(o.Binary)
		if err != nil {
			return nil, err
		}
	}
	files := []file{bin}
	for name, from := range o.Extra {
		f, err := fileAt(name, from)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if o.Fault.inside() {
		files = append(files, textFile(FaultFile, string(o.Fault)+"\n"))
	}
	files = append(files, o.padding()...)
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// padding returns files that do not compress: one at the top, or many, each in directories of its
// own, as a program in JavaScript has them.
func (o Options) padding() []file {
	if o.PadBytes <= 0 {
		return nil
	}
	n := int64(max(o.PadFiles, 1))
	var files []file
	for i := range n {
		name := "padding"
		if n > 1 {
			name = fmt.Sprintf("lib/node_modules/package-%d/dist/index.js", i)
		}
		size := o.PadBytes/n + min(1, max(0, o.PadBytes%n-i))
		files = append(files, file{name: name, mode: 0o644, size: size, open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.LimitReader(rand.NewChaCha8([32]byte{1, byte(i), byte(i >> 8), byte(i >> 16)}), size)), nil
		}})
	}
	return files
}

func nextSequence(dir, repository string) (uint64, error) {
	manifests, err := readManifests(releasesDir(dir, repository))
	if err != nil {
		return 0, err
	}
	var last uint64
	for _, m := range manifests {
		last = max(last, m.Sequence)
	}
	return last + 1, nil
}

// readManifests reads the manifests of all releases of one repository.
func readManifests(dir string) ([]release.Manifest, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ms []release.Manifest
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "v") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name(), release.ManifestName))
		if err != nil {
			return nil, err
		}
		m, err := release.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		ms = append(ms, m)
	}
	return ms, nil
}
