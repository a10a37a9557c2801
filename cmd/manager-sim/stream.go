package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// record is what the commands read of the manager's stream.
type record struct {
	Type      string `json:"type"`
	Seq       int64  `json:"seq"` // of an event
	Time      string `json:"time"`
	NodeID    string `json:"node_id"`
	Version   string `json:"version"`
	ErrorCode string `json:"error_code"`
	CommandID string `json:"command_id"`
	Severity  string `json:"severity"`
	Message   string `json:"message"`
	Success   bool   `json:"success"`
	RolloutID string `json:"rollout_id"`
	Status    string `json:"status"`
}

// watch follows the manager's stream. It outlives the end of a stream, and the
// manager itself: it connects again, has the manager repeat the events that it
// missed, and asks for the state that it waits for.
type watch struct {
	begin  func() error // once, when the stream first listens
	record func(record, []byte) (done bool, err error)
	check  func() (done bool, err error) // after each connect, and every checkEvery; nil: there is nothing to ask

	every time.Duration // between checks; 0: checkEvery

	last  int64     // Seq of the newest event
	begun bool      // begin has returned without an error
	heard time.Time // when the manager was last reached
}

const (
	checkEvery    = 10 * time.Second // a stream may be dead and not say so
	reconnectFrom = 250 * time.Millisecond
	reconnectTo   = 5 * time.Second
	maxRecord     = 1 << 20
)

// giveUp is how long a command that has no time limit waits for a manager that
// cannot be reached.
const giveUp = 5 * time.Minute

// errLost is the end of a stream.
var errLost = errors.New("the manager ended the stream")

// follow runs w until it is done, fails, or ctx ends; then it returns the cause of
// ctx. An error of begin, and of the first connection, is returned at once.
func (c *client) follow(cmd *cobra.Command, ctx context.Context, w *watch) error {
	if err := c.newest(ctx, w); err != nil {
		return err
	}
	w.heard = time.Now()
	delay, told := reconnectFrom, false
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
		case !w.begun || !errors.Is(err, errLost) && !isUnreachable(err):
			return err
		case time.Since(w.heard) > giveUp:
			return unreachable(fmt.Errorf("no answer for %v: %w", giveUp, err))
		case errors.Is(err, errLost):
			delay = reconnectFrom
		case !told:
			told = true
			fmt.Fprintln(cmd.ErrOrStderr(), "The manager gives no answer; trying again.")
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, reconnectTo)
	}
}

// silent reports whether the manager has given no answer to the last checks.
func (w *watch) silent() bool {
	return w.begun && time.Since(w.heard) > 2*cmp.Or(w.every, checkEvery)
}

// newest remembers the newest event, from which a stream goes on.
func (c *client) newest(ctx context.Context, w *watch) error {
	var page struct {
		Events []record `json:"events"`
	}
	if _, err := c.call(ctx, http.MethodGet, "/api/v1/events?per_page=1", nil, &page); err != nil {
		return err
	}
	if len(page.Events) > 0 {
		w.last = page.Events[0].Seq
	}
	return nil
}

// listen is one stream.
func (c *client) listen(ctx context.Context, w *watch) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header := http.Header{}
	if w.last > 0 {
		header.Set("Last-Event-Id", strconv.FormatInt(w.last, 10))
	}
	resp, err := c.do(ctx, http.MethodGet, "/api/v1/events/stream", nil, header)
	if err != nil {
		return false, err
	}
	lines, ended := make(chan string), make(chan error, 1)
	defer func() {
		cancel()
		resp.Body.Close()
		<-ended
	}()
	go func() {
		ended <- readLines(ctx, resp.Body, lines)
		close(ended)
		close(lines)
	}()
	check := func() (bool, error) {
		if w.check == nil {
			return false, nil
		}
		done, err := w.check()
		if err == nil {
			w.heard = time.Now()
		}
		return done, err
	}
	tick := time.NewTicker(cmp.Or(w.every, checkEvery))
	defer tick.Stop()
	for first := true; ; {
		select {
		case <-tick.C:
			if !w.begun {
				continue
			}
			done, err = check()
		case line, ok := <-lines:
			if !ok {
				return false, errLost
			}
			w.heard = time.Now()
			if first { // the comment by which the manager says that it listens
				first = false
				if !w.begun {
					if err := w.begin(); err != nil {
						return true, err
					}
					w.begun = true
				}
				done, err = check()
				break
			}
			done, err = w.line(line)
		}
		if done || err != nil {
			return done, err
		}
	}
}

// line handles a line of the stream.
func (w *watch) line(line string) (done bool, err error) {
	data, ok := strings.CutPrefix(line, "data: ")
	if !ok {
		return false, nil
	}
	var r record
	if json.Unmarshal([]byte(data), &r) != nil {
		return false, nil
	}
	if r.Type == "event" && r.Seq > w.last {
		w.last = r.Seq
	}
	return w.record(r, []byte(data))
}

// readLines passes on the lines of a stream until it ends. One that is longer than
// maxRecord it leaves out.
func readLines(ctx context.Context, from io.Reader, to chan<- string) error {
	r := bufio.NewReaderSize(from, maxRecord)
	for {
		line, err := r.ReadSlice('\n')
		text := strings.TrimRight(string(line), "\r\n")
		for errors.Is(err, bufio.ErrBufferFull) {
			text = ""
			_, err = r.ReadSlice('\n')
		}
		if err != nil {
			return err
		}
		select {
		case to <- text:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
