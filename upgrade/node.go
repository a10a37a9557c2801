package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// standing is what a node judges a release by.
type standing struct {
	host     release.Host
	policy   release.Policy  // with the floors
	running  release.Version // steps back count from it; zero: the node runs none
	current  release.Version // what current points to; zero: nothing
	back     release.Version // what a rollback of the next trial returns to
	unproven bool            // current is on trial, and a newer version may take its place
	onTrial  release.Version // without a result yet; zero: nothing
}

// standing reads the node's root. It writes nothing.
func (p *Pipeline) standing() (standing, error) {
	n := p.c.Node
	res, err := n.Layout.Read()
	if err != nil {
		return standing{}, err
	}
	return p.standingOf(res), nil
}

func (p *Pipeline) standingOf(res state.Result) standing {
	n := p.c.Node
	s := standing{host: n.Host, policy: n.Policy, running: p.c.Running, current: res.Tree.Current, back: res.Tree.Current}
	s.policy.Floor, s.policy.FloorSequence = res.State.Floor, res.State.FloorSequence
	if s.running.IsZero() {
		s.running = s.current
	}
	if res.State.Status == state.PendingHealth {
		s.back = res.State.Good
		if s.unproven = n.Layout.MayReplace(res.State); !s.unproven {
			s.onTrial = res.State.Target
		}
	}
	return s
}

// Allows returns why this node, with the state and links of res, refuses the
// release that a manager requests, or nil. It needs no manifest.
func (p *Pipeline) Allows(req release.Request, res state.Result) error {
	return p.standingOf(res).allows(req)
}

func (n standing) allows(req release.Request) error {
	switch {
	case !n.policy.Enabled:
		return n.policy.Check(req, n.running)
	case !n.onTrial.IsZero():
		return release.Errorf(release.InProgress, "%s is on trial; wait for its result", n.onTrial)
	case n.unproven && req.Version == n.back:
		return release.Errorf(release.InProgress, "%s is what a rollback of %s returns to; roll back instead (edge-agent rollback)", n.back, n.current)
	case req.Version == n.current:
		return release.Errorf(release.InProgress, "%s runs already", n.current)
	}
	return n.policy.Check(req, n.running)
}

// choose checks the manifest m, and returns the artefact for the node. version
// and channel, if set, are what the release must be.
func (n standing) choose(m release.Manifest, version release.Version, channel string) (release.Artefact, error) {
	if version.IsZero() {
		version = m.Version
	}
	if channel == "" {
		channel = m.Channel
	}
	req, err := release.NewRequest(version.String(), channel, "", "", n.host)
	if err != nil {
		return release.Artefact{}, err
	}
	if err := n.allows(req); err != nil {
		return release.Artefact{}, err
	}
	return n.policy.Select(m, req, n.host)
}

// newNode is a node that has nothing yet, and for which m is made.
func newNode(m release.Manifest) standing {
	return standing{
		host:   release.Host{DeviceType: m.DeviceType, Arch: release.HostArch(), Variant: release.DefaultVariant},
		policy: release.Policy{Enabled: true, Channels: []string{m.Channel}},
	}
}

// ErrInstalled reports that the root has a version already.
var ErrInstalled = stage.ErrInstalled

// ready returns an error unless the root is one for that last step: an installation needs
// one without a version, every other step needs a version to return to.
func ready(l state.Layout, end End) error {
	_, err := os.Lstat(l.Current())
	switch absent := errors.Is(err, fs.ErrNotExist); {
	case end == Install && absent:
		return nil
	case end == Install:
		return errors.Join(ErrInstalled, err)
	}
	res, err := l.Read()
	if err == nil && res.Tree.Current.IsZero() {
		err = fmt.Errorf("no version is installed under %s: install one with edge-agent install", l.Root())
	}
	return err
}
