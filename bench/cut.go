package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/bench/payload"
	"github.com/bilbycast/edge-agent/internal/powercut"
)

// What a power cut right after the end of an upgrade leaves.
const (
	survived = "yes"         // the new version, complete
	notTried = "not tried"   // with the reason
	lost     = "no: lost"    // the previous version, complete
	damaged  = "no: DAMAGED" // neither
)

// cutPower tries each row on a disk that loses its power right after the command ends:
// once with a flushed journal, and once without.
func (b *bench) cutPower(ctx context.Context, rows []*row) error {
	for _, r := range rows {
		if r.why != "" || r.tree == "" || r.group == groupMemory {
			continue
		}
		switch {
		case b.o.noCut:
			r.survive = notTried
			continue
		case !b.root:
			r.survive = notTried + ": needs root and a mount namespace"
			continue
		}
		r.survive = survived
		for _, how := range []powercut.How{powercut.Journal, powercut.Nothing} {
			b.say("power cut (%d): %s", how, r.name)
			got, err := b.cut(ctx, r, how)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.survive = fmt.Sprintf("%s: %v", notTried, err)
				break
			}
			if got == damaged || got == lost && r.survive == survived {
				r.survive = got
			}
		}
	}
	return nil
}

// cut installs on a new disk, cuts its power, and looks at what is there.
func (b *bench) cut(ctx context.Context, r *row, how powercut.How) (got string, err error) {
	file := filepath.Join(b.dir, "disk")
	mnt := filepath.Join(b.dir, "target")
	disk, err := powercut.New(file, mnt, 6*b.unpacked+512<<20)
	if err != nil {
		return "", err
	}
	defer os.Remove(file)
	defer disk.Close()
	detach := func() {
		if r.detach != nil {
			r.detach(context.WithoutCancel(ctx))
		}
	}
	defer detach()
	b.host.Link.SetRate(0)
	if err := b.reset(ctx, r); err != nil {
		return "", err
	}
	b.host.Begin()
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	if r.resumed {
		if _, err := b.half(ctx, r); err != nil {
			return "", err
		}
	}
	if _, err := b.run(ctx, r.command); err != nil {
		return "", err
	}
	if err := disk.Cut(how, detach); err != nil {
		return "", err
	}
	return b.left(ctx, r), nil
}

// left judges what a cut left.
func (b *bench) left(ctx context.Context, r *row) string {
	dir, err := r.active(ctx)
	if err != nil {
		return damaged // what was there before cannot be reached either
	}
	if r.inactive != nil {
		defer r.inactive(context.WithoutCancel(ctx))
	}
	if payload.Equal(r.tree, dir) == nil {
		return survived
	}
	target, err := os.Readlink(dir)
	if err == nil && filepath.Base(target) == "1.0.0" {
		return lost
	}
	return damaged
}
