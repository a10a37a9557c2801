package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/spf13/cobra"
)

// watch follows the manager's event stream until it is done. It survives the end of a
// stream and a restart of the manager: it connects again, requests the events that it
// missed, and checks the state that it waits for.
type watch struct {
	begin  func() error                            // called once, when the stream first listens
	record func(api.Record) (done bool, err error) // called for each record
	check  func() (done bool, err error)           // called after each connect, and regularly; may be nil

	every time.Duration // between checks; 0: checkEvery

	last  int64     // Seq of the newest event
	begun bool      // begin returned without an error
	heard time.Time // when the manager last answered
}

const (
	checkEvery    = 10 * time.Second // a dead stream may not end
	reconnectFrom = 250 * time.Millisecond
	reconnectTo   = 5 * time.Second
)

// giveUp is how long a command without a time limit waits for an unreachable manager.
const giveUp = 5 * time.Minute

// errStreamEnded is the end of a stream that had begun.
var errStreamEnded = errors.New("the manager ended the stream")

// follow runs w until it is done or fails. If ctx ends first, it returns the cause. It
// returns an error of begin and of the first connection at once.
func (c *client) follow(cmd *cobra.Command, ctx context.Context, w *watch) error {
	var err error
	if w.last, err = c.NewestEvent(ctx); err != nil {
		return err
	}
	w.heard = time.Now()
	delay, reported := reconnectFrom, false
	for {
		done, err := c.listen(ctx, w)
		switch {
		case ctx.Err() != nil && !done:
			if !w.begun {
				return errors.Join(context.Cause(ctx), err)
			}
			return context.Cause(ctx)
		case done || err == nil:
			return err
		case !w.begun || !errors.Is(err, errStreamEnded) && !api.IsUnreachable(err):
			return err
		case time.Since(w.heard) > giveUp:
			return unreachable(fmt.Errorf("no answer for %v: %w", giveUp, err))
		case errors.Is(err, errStreamEnded):
			delay = reconnectFrom
		case !reported:
			reported = true
			fmt.Fprintln(cmd.ErrOrStderr(), "Manager unreachable, retrying.")
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, reconnectTo)
	}
}

// silent reports whether the manager has not answered the last checks.
func (w *watch) silent() bool {
	return w.begun && time.Since(w.heard) > 2*cmp.Or(w.every, checkEvery)
}

// listen runs w on one stream.
func (c *client) listen(ctx context.Context, w *watch) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Stream(ctx, w.last)
	if err != nil {
		return false, err
	}
	records := make(chan api.Record)
	defer func() {
		cancel()
		stream.Close()
		for range records { // until its sender has ended
		}
	}()
	go func() {
		defer close(records)
		for {
			r, err := stream.Next()
			if err != nil {
				return
			}
			select {
			case records <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(cmp.Or(w.every, checkEvery))
	defer tick.Stop()
	for listening := false; ; {
		select {
		case <-tick.C:
			if !w.begun {
				continue
			}
			done, err = w.checked()
		case r, ok := <-records:
			if !ok {
				return false, errStreamEnded
			}
			w.heard = time.Now()
			if !listening { // the first record is a heartbeat
				listening = true
				if !w.begun {
					if err := w.begin(); err != nil {
						return true, err
					}
					w.begun = true
				}
				done, err = w.checked()
			}
			if !done && err == nil && r.Type != "" {
				w.last = max(w.last, r.Seq)
				done, err = w.record(r)
			}
		}
		if done || err != nil {
			return done, err
		}
	}
}

// checked runs check, if there is one.
func (w *watch) checked() (done bool, err error) {
	if w.check == nil {
		return false, nil
	}
	done, err = w.check()
	if err == nil {
		w.heard = time.Now()
	}
	return done, err
}
