package upgrade

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/verify"
)

// RenewTrust takes a newer trust root from the files in from, if Sigstore's TUF
// keys prove it, and keeps it under the root of l. See verify.Renew.
//
// It reads from, which may be a slow host, before it takes the lock of l, and
// proves what it read again under the lock: another process may have renewed
// the root meanwhile.
func RenewTrust(ctx context.Context, l state.Layout, from fs.FS) (verify.Renewal, error) {
	kept := fsutil.DirFS(l.TrustDir())
	r, err := verify.Renew(from, kept)
	if err != nil {
		return r, err
	}
	read := fsutil.MemFS(r.Files)
	err = l.Locked(ctx, func() (err error) {
		if r, err = verify.Renew(read, kept); err != nil {
			return err
		}
		return l.KeepTrust(r.Files)
	})
	return r, err
}

// renew is the stager's Renew: a release may bring a newer trust root along.
func (p *Pipeline) renew(ctx context.Context, beside fs.FS) (stage.Trust, error) {
	l := p.c.Node.Layout
	n, err := RenewTrust(ctx, l, beside)
	if err != nil {
		return nil, err
	}
	t, unfit, err := verify.LoadKept(p.c.Signers, fsutil.DirFS(l.TrustDir()))
	if err := errors.Join(unfit, err); err != nil {
		return nil, err
	}
	p.c.Log.Info("trust root renewed: a newer one came with the release, proven by Sigstore's keys", "root_version", n.RootVersion, "targets_version", n.TargetsVersion)
	logLeftOut(p.c.Log, n.LeftOut)
	return t, nil
}

// logLeftOut names the parties of a trust root that this program does not understand.
func logLeftOut(log *slog.Logger, parties []string) {
	for _, party := range parties {
		log.Warn("this version does not understand a party of the trust root, and does not trust it", "party", party)
	}
}
