// Package upgrade takes a release through every step on its way to a node: fetch,
// verify, choose, stage, commit.
//
// A manager's command, a stick, a first installation and a check all run the
// same steps. They differ in the Source that they open, and in their last step,
// the End. The node's policy and rollback floors apply to all of them.
//
// After a crash the node runs what it ran before, or has the new version on
// trial: the commit is one change of state.json. Until then a failure leaves at
// most a download that can be resumed. The package restarts nothing, and does
// not decide whether a version is healthy.
package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/verify"
)

// Config says for which node a Pipeline works.
type Config struct {
	// Node is the node's configuration; nil: there is no node, and a release is
	// checked as for a new one that accepts its channel.
	Node *config.Settings
	// Signers are the rows of the allowlist; nil means verify.DefaultSigners.
	Signers []verify.Signer
	// Running is the version that this process is, if it is the service; it is
	// never removed, and steps back count from it. Zero: the version that current
	// points to.
	Running release.Version
	// CheckVersion, if set, returns why the service could not start the version in dir, which
	// is staged and not yet on trial, or nil (systemd.Service.FitVersion).
	CheckVersion func(ctx context.Context, dir string) error
	// BeforeSwap, if set, is called last before the swap to a version, or before it is put ready
	// for an operator. An error refuses the upgrade. still, if it is not nil, reports right before
	// the commit, under the root's lock, whether what BeforeSwap did still holds; if not, it is
	// called again.
	BeforeSwap func(ctx context.Context, v release.Version) (still func() bool, err error)
	// Verified, if set, is called once a release is verified, before its download.
	Verified func()
	// Progress, if set, is told how far staging is; see stage.Config.
	Progress func(phase string, done, total int64)
	Log      *slog.Logger // nil: nobody reads it
}

// Pipeline takes releases onto one node, one at a time. Make it with New.
type Pipeline struct {
	c      Config
	stager *stage.Stager
}

// New returns a Pipeline. It writes nothing.
func New(c Config) (*Pipeline, error) {
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	var kept fs.FS
	if c.Node != nil {
		kept = fsutil.DirFS(c.Node.Layout.TrustDir())
	}
	trust, unfit, err := verify.LoadKept(c.Signers, kept)
	if err != nil {
		return nil, err
	}
	if unfit != nil {
		c.Log.Error("the renewed trust root cannot be used; using the compiled-in one", "error", unfit)
	}
	logLeftOut(c.Log, trust.LeftOut())
	return newPipeline(c, trust)
}

// newPipeline is New with another trust; tests give that of a fake Sigstore.
func newPipeline(c Config, trust stage.Trust) (*Pipeline, error) {
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	p := &Pipeline{c: c}
	note := func(text string) { c.Log.Warn(text) }
	sc := stage.Config{Binary: "none", Trust: trust, Progress: c.Progress, Note: note}
	if n := c.Node; n != nil {
		sc = stage.Config{
			Layout: n.Layout, Trust: trust, Renew: p.renew, Binary: n.Service.Binary, NoRun: n.Service.Unit != "",
			KeepVersions: n.Upgrade.KeepVersions, Running: c.Running, Progress: c.Progress, Note: note,
			Proxy: n.Proxy, MaxBandwidth: n.MaxBandwidth, AllowPrivate: n.Upgrade.AllowPrivateRedirects,
		}
	}
	var err error
	p.stager, err = stage.New(sc)
	return p, err
}

// End is the last step of a Pipeline.
type End int

const (
	Swap    End = iota // put the version on trial at the next start
	Shelve             // leave it for an operator: edge-agent apply
	Install            // make it the first version of a node that has none
)

// Request is a request for a release.
type Request struct {
	// Version and Channel, if set, are what the release must be; otherwise the
	// release's own count.
	Version release.Version
	Channel string
	// ManifestSHA256, if set, is the only manifest that the request accepts, in lower-case
	// hex. It refuses a release that would be allowed, and allows none.
	ManifestSHA256 string
	// CommandID is that of the manager's command; "": an operator on the node
	// requests the release. upgrade.enabled permits the manager's commands, and
	// counts only for them.
	CommandID string
	End       End
	// Running is asked before a Swap: before anything is fetched, and again right before
	// the swap. Other Ends do not ask it.
	Running Running
	// Downloaded, if set, is called once the tarball is complete and has the
	// signed digest.
	Downloaded func()
	// Waiting, if set, is told what the download waits for (stage.Patience). Then the download
	// is retried for the node's download_retry_secs, of which Before has used some. Without
	// it, as for a command that an operator waits for, it fails after a few tries.
	Waiting func(stage.Wait)
	Before  stage.Wait
}

// Run takes the release in src through every step. It returns the release also
// with an error, once it is verified. The caller closes src.
func (p *Pipeline) Run(ctx context.Context, src stage.Source, r Request) (verify.Release, error) {
	n := p.c.Node
	if n == nil {
		return verify.Release{}, errors.New("upgrade: there is no node to install on")
	}
	if err := ready(n.Layout, r.End); err != nil {
		return verify.Release{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx) // the probe ends with a release that is refused
	defer cancel(nil)
	root := make(chan error, 1)
	go func() { // a manifest takes round trips, and these take the disk
		err := p.checkRoot(ctx, r.End)
		if err != nil {
			cancel(err) // a fetch may wait for hours
		}
		root <- err
	}()
	rel, err := p.fetchFor(ctx, src, r)
	if err := cmp.Or(<-root, err); err != nil {
		return rel, err
	}
	if err := CheckManifest(rel.Manifest().Version, rel.ManifestSHA256(), r.ManifestSHA256); err != nil {
		return rel, err
	}
	sig := rel.Signature()
	p.c.Log.Info("manifest verified", "command_id", r.CommandID, "version", rel.Manifest().Version.String(), "workflow", sig.Workflow, "commit", sig.Commit, "signed_at", sig.Time)
	if p.c.Verified != nil {
		p.c.Verified()
	}
	node, err := p.standing()
	if err != nil {
		return rel, err
	}
	if r.End == Shelve && node.unproven { // its trial would have no end
		return rel, release.Errorf(release.InProgress, "%s is on trial still, and a release can wait for an operator only where none is: accept it (edge-agent accept), or roll back", node.current)
	}
	node.policy.Enabled = node.policy.Enabled || r.CommandID == ""
	if r.End == Install { // an interrupted installation may have recorded its version already
		node.running, node.current = release.Version{}, release.Version{}
	}
	artefact, err := node.choose(rel.Manifest(), r.Version, r.Channel)
	if err != nil {
		return rel, err
	}
	before := p.baseline(ctx, r.End)
	downloaded := func() {
		p.c.Log.Info("tarball downloaded and checked", "command_id", r.CommandID, "sha256", artefact.SHA256)
		if r.Downloaded != nil {
			r.Downloaded()
		}
	}
	staged, err := p.stager.Stage(ctx, src, rel, artefact, downloaded)
	if err != nil {
		return rel, err
	}
	if p.c.CheckVersion != nil && r.End != Install { // the unit is written after the first installation
		if err := p.c.CheckVersion(ctx, n.Layout.Version(staged.Version())); err != nil {
			return rel, release.Errorf(release.Internal, "the service could not start %s: %w", staged.Version(), err)
		}
	}
	if err := p.checkConfig(ctx, staged.Version(), r.End); err != nil {
		return rel, err
	}
	for tries := 1; ; tries++ {
		var still func() bool
		if p.c.BeforeSwap != nil && r.End != Install {
			if still, err = p.c.BeforeSwap(ctx, staged.Version()); err != nil {
				return rel, release.Errorf(release.CodeOf(err), "%w", err)
			}
		}
		if err := p.checkRunning(ctx, r); err != nil {
			return rel, err
		}
		if err = p.commit(ctx, staged, rel.Manifest(), r, <-before, still); !errors.Is(err, errNotStill) || tries == maxBefore {
			return rel, err
		}
		before = p.baseline(ctx, r.End)
	}
}

// checkRoot refuses an upgrade that the install root cannot store, or after which the node might
// have no way back.
func (p *Pipeline) checkRoot(ctx context.Context, end End) error {
	if err := p.tryRoot(ctx); err != nil || end == Install {
		return err
	}
	return p.checkReturn(ctx)
}

// fetchFor is Fetch for a request, unless the running version refuses it.
func (p *Pipeline) fetchFor(ctx context.Context, src stage.Source, r Request) (verify.Release, error) {
	if r.Running.Repair {
		p.c.Log.Info("an operator declared this release the repair; the running version's own check is not looked at", "command_id", r.CommandID)
	}
	if err := p.checkRunning(ctx, r); err != nil {
		return verify.Release{}, err
	}
	patience := stage.Patience{Before: r.Before, Waiting: r.Waiting}
	if r.Waiting != nil {
		patience.Limit = p.c.Node.DownloadRetry
	}
	p.stager.SetPatience(patience)
	return p.Fetch(ctx, src)
}

// maxBefore is how often BeforeSwap is called for one upgrade: the state changes once, when the
// running version is kept or has restored its data, and hardly again.
const maxBefore = 3

var errNotStill = release.Errorf(release.InProgress, "the running version was kept, or restored its data, while the upgrade was prepared: retry")

// Fetch reads the manifest and its signature from src, and verifies them.
func (p *Pipeline) Fetch(ctx context.Context, src stage.Source) (verify.Release, error) {
	return p.stager.Fetch(ctx, src)
}

// commit makes a staged release what r.End says.
func (p *Pipeline) commit(ctx context.Context, staged stage.Staged, m release.Manifest, r Request, before baseline, still func() bool) error {
	l := p.c.Node.Layout
	trial := state.Trial{ID: r.CommandID, CommandID: r.CommandID, Channel: m.Channel, MaxAttempts: p.c.Node.Upgrade.MaxBootAttempts, Repair: r.Running.Repair}
	if trial.ID == "" {
		trial.ID = fmt.Sprintf("offline-%s-%d", m.Version, time.Now().UnixMilli())
	}
	end := map[End]func(context.Context, state.Layout, stage.Staged, state.Trial) (state.Result, error){
		Swap: stage.Swap, Shelve: stage.Shelve, Install: stage.Install,
	}[r.End]
	staged = staged.Recording(func() error {
		if still != nil && !still() {
			return errNotStill
		}
		if r.End != Swap {
			return nil
		}
		if t, err := l.Tree(); err == nil && t.LastGood != before.lastGood { // it judges the trial
			return errNotStill
		}
		if r.Running.Accept {
			if err := l.RecordAccept(state.AcceptRecord{TrialID: trial.ID, At: time.Now().UTC()}); err != nil {
				return err
			}
		}
		if note := recordTrial(l, trial.ID, before); note != "" {
			p.c.Log.Warn(note, "command_id", r.CommandID)
		}
		return nil
	})
	_, err := end(ctx, l, staged, trial)
	if errors.Is(err, state.ErrReportsPending) { // the commit is done, and the next start reports it
		p.c.Log.Warn("the swap will be reported after the restart", "error", err, "command_id", r.CommandID)
		err = nil
	}
	return err
}

// Tidy removes what a crash left behind (stage.Stager.Tidy), and the records of earlier
// trials.
func (p *Pipeline) Tidy(ctx context.Context) error {
	err := p.stager.Tidy(ctx)
	if p.c.Node == nil {
		return err
	}
	l := p.c.Node.Layout
	return errors.Join(err, l.Locked(ctx, func() error {
		res, err := l.Read()
		if err != nil {
			return nil // what is on trial is not known
		}
		return l.ForgetTrials(res.State)
	}))
}
