package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/verify"
)

// Examination is what a release is worth, and whether a node would install it.
type Examination struct {
	Release verify.Release   // its OK says whether the signature holds
	Running release.Version  // zero: not judged for a node
	Chosen  release.Artefact // for this machine, if Refused is nil
	// Tarball says what was checked of the chosen tarball: "its digest is the
	// signed one", or why that is not known.
	Tarball string
	// Refused is why it would not be installed; nil: it would.
	Refused error
}

// Examine verifies the release in a directory, in a tar file, at an https URL
// (of the directory that manifest.json is in), or of a version (from where a
// node fetches it), and judges whether it would be installed. With c it is
// judged by that node's policy and state; with nil, as by a new node that takes
// its channel. It changes nothing. An error means that there is nothing to judge.
func Examine(ctx context.Context, c *Config, what string, signers []verify.Signer) (Examination, error) {
	sc := stage.Config{Binary: "none", Now: certificateTime}
	var node resolved
	var kept fs.FS
	if c != nil {
		c.Version = "0.0.0"
		r, err := c.resolve()
		if err != nil {
			return Examination{}, fmt.Errorf("config: %w", err)
		}
		node, kept, signers = r, fsutil.DirFS(r.layout.TrustDir()), c.Signers
		sc = r.staging(verify.Trust{})
		sc.Renew = nil // nothing is kept here
	}
	trust, _, err := verify.LoadKept(signers, kept)
	if err != nil {
		return Examination{}, err
	}
	version, done, err := aim(&sc, trust, what)
	if err != nil {
		return Examination{}, err
	}
	defer done()
	stager, err := stage.New(sc)
	if err != nil {
		return Examination{}, err
	}
	rel, err := stager.Fetch(ctx, version)
	var coded *release.Error
	if err != nil && (!errors.As(err, &coded) || coded.Code == release.NetworkError || coded.Code == release.URLInvalid) {
		return Examination{}, err
	}
	e := Examination{Release: rel, Refused: err}
	if err != nil {
		return e, nil
	}
	m := rel.Manifest()
	host := release.Host{DeviceType: m.DeviceType, Arch: release.HostArch(), Variant: release.DefaultVariant}
	policy := release.Policy{Enabled: true, Channels: []string{m.Channel}}
	if c != nil {
		now, err := node.layout.Read()
		if err != nil {
			return e, err
		}
		host, policy, e.Running = node.host, node.policy, now.Tree.Current
		policy.Floor, policy.FloorSequence = now.State.Floor, now.State.FloorSequence
		if now.State.Status == state.PendingHealth {
			e.Refused = release.Errorf(release.InProgress, "%s is on trial; wait for its result", now.State.Target)
			return e, nil
		}
	}
	req, err := release.NewRequest(m.Version.String(), m.Channel, "", "", host)
	if err != nil {
		return e, err
	}
	switch {
	case !e.Running.IsZero() && m.Version == e.Running:
		e.Refused = release.Errorf(release.InProgress, "%s runs already", e.Running)
		return e, nil
	case !e.Running.IsZero():
		e.Refused = policy.Check(req, e.Running)
	}
	if e.Refused == nil {
		e.Chosen, e.Refused = policy.Select(m, req, host)
	}
	if e.Refused == nil {
		e.Tarball, e.Refused = digestOf(ctx, sc.From, e.Chosen)
	}
	return e, nil
}

// aim makes sc fetch what: the release in a directory, in a tar file, at an https
// URL, or of a version, which is returned. done is called when all is fetched.
func aim(sc *stage.Config, trust verify.Trust, what string) (v release.Version, done func(), err error) {
	sc.Trust, done = trust, func() {}
	if v, err = release.ParseVersion(what); err == nil {
		return v, done, nil
	}
	if strings.HasPrefix(what, "https://") {
		sc.Trust = elsewhere{trust, strings.TrimSuffix(strings.TrimSuffix(what, "/"+release.ManifestName), "/")}
		return release.Version{}, done, nil
	}
	if sc.From, err = stage.OpenSource(what); err != nil {
		return release.Version{}, done, fmt.Errorf("%w (give a directory, a tar file, an https URL or a version)", err)
	}
	return release.Version{}, func() { sc.From.Close() }, nil
}

// digestOf compares the tarball of a Source with its signed digest.
func digestOf(ctx context.Context, from stage.Source, a release.Artefact) (string, error) {
	if from == nil {
		return "not downloaded; its digest is checked before anything of it is used", nil
	}
	name := path.Base(a.URL)
	f, size, err := from.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", release.Errorf(release.NetworkError, "%s is not there", name)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, min(size, release.MaxTarball))); err != nil || ctx.Err() != nil {
		return "", errors.Join(err, ctx.Err())
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != a.SHA256 {
		return "", release.Errorf(release.ChecksumMismatch, "%s has the SHA-256 %s, but the signed manifest says %s", name, got, a.SHA256)
	}
	return "its SHA-256 is the signed one", nil
}

// elsewhere is trust with the files at another place.
type elsewhere struct {
	verify.Trust
	url string
}

func (e elsewhere) FetchURL(release.Version) string { return e.url }
