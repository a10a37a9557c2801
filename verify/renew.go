package verify

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Names of the files that Renew reads, besides N.root.json for each version of
// the TUF root after the one that is known.
const (
	targetsFile     = "targets.json"
	trustedRootFile = "trusted_root.json"
	rootSuffix      = ".root.json"
)

// IsRenewalFile reports whether Renewal.Files can have a file of that name.
func IsRenewalFile(name string) bool {
	return name == targetsFile || name == trustedRootFile || strings.HasSuffix(name, rootSuffix)
}

// maxRoots bounds how many versions of the TUF root one renewal may go through.
// Sigstore makes about two a year.
const maxRoots = 256

// Renewal is a trust root that Sigstore's TUF keys prove. Only Renew makes one.
type Renewal struct {
	// Files are the files that prove it, by name: those that Renew reads, and that the
	// caller keeps.
	Files          map[string][]byte
	RootVersion    int64 // of the TUF root
	TargetsVersion int64
	// LeftOut names the parties of the trusted root that this program does not understand,
	// and does not trust. Files has them: a later program may understand them.
	LeftOut []string

	root *metadata.Metadata[metadata.RootType]
}

// TrustedRoot returns the trusted_root.json.
func (r Renewal) TrustedRoot() []byte { return r.Files[trustedRootFile] }

// anchor is where a renewal starts from in a new program.
type anchor struct {
	root    []byte // TUF root.json
	targets int64  // the version that the compiled-in trust root is of
}

// Renew reads a newer trust root from dir, and proves it by the compiled-in TUF keys and
// nothing else: the source of the files is not trusted. kept, if not nil, has the
// files of the last renewal; nothing older than those, or than what is compiled in,
// is accepted.
//
// dir has N.root.json for each version after the known one, targets.json and
// trusted_root.json, as in Sigstore's TUF repository. Renew ignores expiry dates: a
// device that does not know the time must get the same result.
func Renew(dir, kept fs.FS) (Renewal, error) {
	a, err := loadAnchor()
	if err != nil {
		return Renewal{}, err
	}
	return a.renew(dir, kept)
}

func (a anchor) renew(dir, kept fs.FS) (Renewal, error) {
	known, err := a.known(kept)
	if err != nil {
		known, err = a.known(nil) // what was kept is of no use any more
	}
	if err != nil {
		return Renewal{}, err
	}
	r, err := known.next(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Renewal{}, fmt.Errorf("trust root: %w", err)
	}
	if err != nil {
		return Renewal{}, fmt.Errorf("trust root: %s", oneLine(err))
	}
	return r, nil
}

// known returns where a renewal starts: at the anchor, or at what was kept since.
func (a anchor) known(kept fs.FS) (Renewal, error) {
	root, err := metadata.Root().FromBytes(a.root)
	if err != nil {
		return Renewal{}, fmt.Errorf("the TUF root that is compiled in: %w", err)
	}
	r := Renewal{Files: map[string][]byte{}, RootVersion: root.Signed.Version, TargetsVersion: a.targets, root: root}
	if kept == nil {
		return r, nil
	}
	return r.next(kept)
}

// next returns the renewal that the files in dir make after r.
func (r Renewal) next(dir fs.FS) (Renewal, error) {
	n := Renewal{Files: map[string][]byte{}, RootVersion: r.RootVersion, root: r.root}
	for name, b := range r.Files {
		if name != targetsFile && name != trustedRootFile {
			n.Files[name] = b
		}
	}
	for range maxRoots {
		name := strconv.FormatInt(n.RootVersion+1, 10) + rootSuffix
		b, err := readBounded(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return Renewal{}, err
		}
		next, err := metadata.Root().FromBytes(b)
		if err != nil {
			return Renewal{}, fmt.Errorf("%s: %w", name, err)
		}
		if next.Signed.Version != n.RootVersion+1 {
			return Renewal{}, fmt.Errorf("%s says that it is version %d", name, next.Signed.Version)
		}
		// Signed by the keys before it, and by its own.
		if err := signedBy(n.root, metadata.ROOT, next); err != nil {
			return Renewal{}, fmt.Errorf("%s is not signed by the keys of version %d: %w", name, n.RootVersion, err)
		}
		if err := signedBy(next, metadata.ROOT, next); err != nil {
			return Renewal{}, fmt.Errorf("%s is not signed by its own keys: %w", name, err)
		}
		n.root, n.RootVersion, n.Files[name] = next, next.Signed.Version, b
	}
	b, err := readBounded(dir, targetsFile)
	if err != nil {
		return Renewal{}, err
	}
	targets, err := metadata.Targets().FromBytes(b)
	if err != nil {
		return Renewal{}, fmt.Errorf("%s: %w", targetsFile, err)
	}
	if err := signedBy(n.root, metadata.TARGETS, targets); err != nil {
		return Renewal{}, fmt.Errorf("%s is not signed by the keys of the TUF root %d (is there a newer root that is missing here?): %w", targetsFile, n.RootVersion, err)
	}
	n.TargetsVersion, n.Files[targetsFile] = targets.Signed.Version, b
	if n.TargetsVersion < r.TargetsVersion {
		return Renewal{}, fmt.Errorf("%s has version %d, older than %d, which is known", targetsFile, n.TargetsVersion, r.TargetsVersion)
	}
	if b, err = readBounded(dir, trustedRootFile); err != nil {
		return Renewal{}, err
	}
	target := targets.Signed.Targets[trustedRootFile]
	if target == nil {
		return Renewal{}, fmt.Errorf("%s does not name %s", targetsFile, trustedRootFile)
	}
	if err := proves(target, b); err != nil {
		return Renewal{}, fmt.Errorf("%s is not the one that %s names: %w", trustedRootFile, targetsFile, err)
	}
	if _, n.LeftOut, err = newTrusted(b); err != nil {
		return Renewal{}, err
	}
	n.Files[trustedRootFile] = b
	return n, nil
}

// signedBy returns nil if enough keys that root names for a role signed m. Keys of a type
// that is not known here count for nothing, as if they had not signed.
func signedBy(root *metadata.Metadata[metadata.RootType], role string, m any) error {
	known := *root
	if r := root.Signed.Roles[role]; r != nil {
		kept := *r
		kept.KeyIDs = slices.DeleteFunc(slices.Clone(r.KeyIDs), func(id string) bool {
			key := root.Signed.Keys[id]
			if key == nil {
				return true
			}
			public, err := key.ToPublicKey()
			if ed, ok := public.(ed25519.PublicKey); ok && len(ed) != ed25519.PublicKeySize {
				return true
			}
			return err != nil || !slices.Contains(schemes, key.Scheme)
		})
		known.Signed.Roles = map[string]*metadata.Role{role: &kept}
	}
	return known.VerifyDelegate(role, m)
}

// schemes are the ways to sign that are known here.
var schemes = []string{
	metadata.KeySchemeEd25519, metadata.KeySchemeECDSA_SHA2_P256, metadata.KeySchemeECDSA_SHA2_P384, metadata.KeySchemeRSASSA_PSS_SHA256,
}

// proves returns nil if b has the size of target, and each digest of it that is known here.
// There must be one.
func proves(target *metadata.TargetFiles, b []byte) error {
	known := *target
	known.Hashes = metadata.Hashes{}
	for _, name := range []string{"sha256", "sha512"} {
		if sum, ok := target.Hashes[name]; ok {
			known.Hashes[name] = sum
		}
	}
	return known.VerifyLengthHashes(b)
}

// readBounded reads a file of at most MaxRoot bytes.
func readBounded(dir fs.FS, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxRoot+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > MaxRoot {
		return nil, fmt.Errorf("%s has more than %d bytes", name, MaxRoot)
	}
	return b, nil
}
