package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"path"
	"slices"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/verify"
)

// Examination is what a check of a release found.
type Examination struct {
	Release verify.Release   // its OK reports whether the signature is valid
	Running release.Version  // of the node; zero: it runs none, or there is no node
	Chosen  release.Artefact // for this machine, if Refused is nil
	// Tarball is what was checked of the chosen tarball: "its SHA-256 is the signed
	// one", or why that is not known.
	Tarball string
	// Refused is why it would not be installed; nil: it would.
	Refused error
}

// Examine takes the release in src through the steps of Run up to the choice of
// an artefact, and compares the digest of a local tarball. It changes nothing.
// version, if set, is what the release must be. An error means that the
// source cannot be read.
func (p *Pipeline) Examine(ctx context.Context, src stage.Source, version release.Version) (Examination, error) {
	s := *p.stager
	s.Renew = nil // it would write the renewed trust root
	rel, err := s.Fetch(ctx, src)
	var coded *release.Error
	if err != nil && (!errors.As(err, &coded) || slices.Contains([]release.Code{release.NetworkError, release.URLInvalid, release.Internal}, coded.Code)) {
		return Examination{}, err
	}
	e := Examination{Release: rel, Refused: err}
	if err != nil {
		return e, nil
	}
	m := rel.Manifest()
	node := newNode(m)
	if p.c.Node != nil {
		if node, err = p.standing(); err != nil {
			return e, err
		}
		e.Running = node.current
	}
	if e.Chosen, e.Refused = node.choose(m, version, ""); e.Refused == nil {
		e.Tarball, e.Refused = digestOf(ctx, src, e.Chosen)
	}
	return e, nil
}

// Examine examines the release that what names, as Pipeline.Open accepts it, for the node
// of c or, without one, as by a new node.
func Examine(ctx context.Context, c Config, what string) (Examination, error) {
	p, err := New(c)
	if err != nil {
		return Examination{}, err
	}
	src, version, err := p.Open(what)
	if err != nil {
		return Examination{}, err
	}
	defer src.Close()
	return p.Examine(ctx, src, version)
}

// digestOf compares the tarball of a local Source with its signed digest.
func digestOf(ctx context.Context, src stage.Source, a release.Artefact) (string, error) {
	if !src.Local() {
		return "not downloaded; its digest is checked before anything of it is used", nil
	}
	name := path.Base(a.URL)
	p, err := src.Open(ctx, name, 0, "")
	if err != nil {
		return "", err
	}
	defer p.Body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(p.Body, min(p.Total, release.MaxTarball))); err != nil {
		return "", err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != a.SHA256 {
		return "", release.Errorf(release.ChecksumMismatch, "%s has the SHA-256 %s, but the signed manifest says %s", name, got, a.SHA256)
	}
	return "its SHA-256 is the signed one", nil
}
