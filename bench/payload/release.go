package payload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Version is the version of every release.
const Version = "1.1.0"

// Forms of a release: what its manifest offers.
const (
	Gz        = "gz"         // the tar.gz
	GzChunks  = "gz+chunks"  // the tar.gz, and the digests of its chunks
	ZstChunks = "zst+chunks" // also the tar.zst, with the digests of its chunks
)

// Release is a packed tree.
type Release struct {
	Tree  string
	TarGz string // its file
	// TarZst is the file of the release, or, if OwnZst, one that the benchmark made.
	// It is empty until NeedZst.
	TarZst string
	OwnZst bool

	manifest map[string]any
}

// Pack packs a tree with the program release-manifest into the directory out.
func Pack(ctx context.Context, releaseManifest, tree, out string) (*Release, error) {
	cmd := exec.CommandContext(ctx, releaseManifest, "build", "--repository", fakerelease.DefaultRepository, "--version", Version,
		"--device-type", "edge", "--sequence", "2", "--out", out, release.HostArch()+"="+tree)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("release-manifest: %w\n%s", err, text)
	}
	b, err := os.ReadFile(filepath.Join(out, release.ManifestName))
	if err != nil {
		return nil, err
	}
	r := &Release{Tree: tree}
	if r.manifest, err = decode(b); err != nil {
		return nil, err
	}
	a, err := artefact(r.manifest)
	if err != nil {
		return nil, err
	}
	r.TarGz = filepath.Join(out, base(a["url"]))
	if f := tarZst(a); f != nil {
		r.TarZst = filepath.Join(out, base(f["url"]))
		return r, nil
	}
	return r, nil
}

// NeedZst makes TarZst if the release has none.
func (r *Release) NeedZst() error {
	if r.TarZst != "" {
		return nil
	}
	r.TarZst, r.OwnZst = strings.TrimSuffix(r.TarGz, ".gz")+".zst", true
	return recompress(r.TarGz, r.TarZst)
}

// Offers returns why the manifest does not offer a form, or nil.
func (r *Release) Offers(form string) error {
	a, err := artefact(r.manifest)
	if err != nil {
		return err
	}
	z := tarZst(a)
	switch {
	case form != Gz && a["chunks"] == nil:
		return errors.New("release-manifest of this checkout writes no chunks")
	case form == ZstChunks && z == nil:
		return errors.New("release-manifest of this checkout writes no tar.zst")
	case form == ZstChunks && z["chunks"] == nil:
		return errors.New("release-manifest of this checkout writes no chunks of the tar.zst")
	}
	return nil
}

// ChunkSize returns the size of the chunks of a form in bytes; 0: it has none.
func (r *Release) ChunkSize(form string) int64 {
	a, err := artefact(r.manifest)
	if err != nil || form == Gz {
		return 0
	}
	if form == ZstChunks {
		a = tarZst(a)
	}
	chunks, _ := a["chunks"].(map[string]any)
	size, _ := chunks["size"].(json.Number)
	n, _ := size.Int64() // not a number: 0
	return n
}

// File returns the file of a form.
func (r *Release) File(form string) string {
	if form == ZstChunks {
		return r.TarZst
	}
	return r.TarGz
}

// Publish signs the manifest of a form, and puts the release below dir/www/name. It
// returns the directory that a simulation build trusts. host and ca are of the server.
func (r *Release) Publish(dir, name, form, host string, ca []byte) (trust string, err error) {
	if err := r.Offers(form); err != nil {
		return "", err
	}
	b, err := json.Marshal(r.manifest)
	if err != nil {
		return "", err
	}
	m, err := decode(b) // a copy
	if err != nil {
		return "", err
	}
	a, err := artefact(m)
	if err != nil {
		return "", err
	}
	files := []string{r.TarGz}
	switch form {
	case Gz:
		delete(a, "chunks")
		delete(a, "formats")
	case GzChunks:
		delete(a, "formats")
	case ZstChunks:
		files = append(files, r.TarZst)
	}
	if b, err = json.MarshalIndent(m, "", "  "); err != nil {
		return "", err
	}
	sig, err := fakesig.Ensure(filepath.Join(dir, "sigstore"))
	if err != nil {
		return "", err
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	claims := fakesig.GitHub(fakerelease.DefaultRepository, fakerelease.Workflow, "refs/tags/v"+Version, commit)
	bundle, err := sig.Sign(b, claims, time.Now(), fakesig.Opt{})
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "www", name, fakerelease.DefaultRepository, "releases", "download", "v"+Version)
	trust = filepath.Join(dir, "trust-"+name)
	root, err := sig.TrustedRoot()
	if err != nil {
		return "", err
	}
	sim, err := json.Marshal(map[string]any{
		"release_host": host + "/" + name,
		"signers": []verify.Signer{{Issuer: claims.Issuer, Repository: claims.SourceRepositoryURI, Workflow: fakerelease.Workflow, Ref: "refs/tags/v*",
			RepositoryID: claims.SourceRepositoryID, OwnerID: claims.SourceRepositoryOwnerID, Runner: claims.RunnerEnvironment}},
	})
	if err := errors.Join(err, os.MkdirAll(at, 0o755), os.MkdirAll(trust, 0o755)); err != nil {
		return "", err
	}
	for _, f := range files {
		if err := os.Link(f, filepath.Join(at, filepath.Base(f))); err != nil {
			return "", err
		}
	}
	for path, b := range map[string][]byte{
		filepath.Join(at, release.ManifestName): b, filepath.Join(at, release.BundleName): bundle,
		filepath.Join(trust, "trusted_root.json"): root, filepath.Join(trust, "sim.json"): sim, filepath.Join(trust, "release_ca.pem"): ca,
	} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return "", err
		}
	}
	return trust, nil
}

// decode keeps fields that this checkout does not know.
func decode(b []byte) (m map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return m, d.Decode(&m)
}

func artefact(m map[string]any) (map[string]any, error) {
	all, _ := m["artefacts"].([]any)
	if len(all) == 1 {
		if a, ok := all[0].(map[string]any); ok {
			return a, nil
		}
	}
	return nil, errors.New("the manifest does not have one artefact")
}

// tarZst returns the format of an artefact that is a tar.zst, or nil.
func tarZst(a map[string]any) map[string]any {
	all, _ := a["formats"].([]any)
	for _, f := range all {
		if m, ok := f.(map[string]any); ok && strings.HasSuffix(base(m["url"]), ".zst") {
			return m
		}
	}
	return nil
}

func base(url any) string {
	s, _ := url.(string)
	return path.Base(s)
}

// recompress makes a tar.zst of a tar.gz.
func recompress(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	w, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close(), out.Close())
}
