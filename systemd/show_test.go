package systemd

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A question without an answer in time is told apart from an answer that is an error, through
// every error that wraps it.
func TestNoAnswerIsATimeout(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := output(ctx, "sleep", "60")
	var timeout interface{ Timeout() bool }
	if !errors.As(err, &timeout) || !timeout.Timeout() || unanswered(errors.Join(nil, err)) == nil {
		t.Errorf("no answer: %v", err)
	}
	for _, args := range [][]string{{"false"}, {"no-such-program"}} {
		if _, err := output(t.Context(), args[0]); err == nil || unanswered(err) != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// FitVersion asks again while systemd does not answer in time, but not for ever.
func TestAnswered(t *testing.T) {
	t.Parallel()
	late := noAnswer{context.DeadlineExceeded}
	for _, tt := range []struct {
		fails int
		err   error
		asked int
		known bool
	}{
		{0, nil, 1, true}, {2, late, 3, true}, {9, late, fitTries, false}, {9, errors.New("no such unit"), 1, false},
	} {
		asked := 0
		p := answered(t.Context(), func() (map[string]string, error) {
			if asked++; asked <= tt.fails {
				return nil, tt.err
			}
			return map[string]string{}, nil
		})
		if asked != tt.asked || (p != nil) != tt.known {
			t.Errorf("%+v: asked %d times, known %t", tt, asked, p != nil)
		}
	}
}
