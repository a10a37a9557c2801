package safelog_test

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/safelog"
)

// broken is a handler each method of which does what the tests want, before it does its work.
type broken struct {
	slog.Handler
	enabled, handle, attrs, group func()
}

func (b broken) Enabled(ctx context.Context, l slog.Level) bool {
	b.enabled()
	return b.Handler.Enabled(ctx, l)
}

func (b broken) Handle(ctx context.Context, r slog.Record) error {
	b.handle()
	return b.Handler.Handle(ctx, r)
}

func (b broken) WithAttrs(a []slog.Attr) slog.Handler {
	b.attrs()
	b.Handler = b.Handler.WithAttrs(a)
	return b
}

func (b broken) WithGroup(name string) slog.Handler {
	b.group()
	b.Handler = b.Handler.WithGroup(name)
	return b
}

// A handler that panics, hangs or ends its goroutine, in any of its methods, does neither to the
// caller. Once it works again it says how many records are missing.
func TestAHandlerThatFails(t *testing.T) {
	t.Parallel()
	bad := map[string]func(free <-chan struct{}){
		"panics":              func(<-chan struct{}) { panic("no disk") },
		"panics with nil":     func(<-chan struct{}) { var h slog.Handler; h.Enabled(context.Background(), 0) },
		"hangs":               func(free <-chan struct{}) { <-free },
		"ends its goroutine":  func(<-chan struct{}) { runtime.Goexit() },
		"takes nearly 2 s":    func(<-chan struct{}) { time.Sleep(safelog.Limit - time.Millisecond) },
		"logs to itself, too": nil,
	}
	for name, does := range bad {
		for _, method := range []string{"Enabled", "Handle", "WithAttrs", "WithGroup"} {
			t.Run(method+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var out bytes.Buffer
					free, well := make(chan struct{}), false
					var log *slog.Logger
					fails := func(which string) func() {
						return func() {
							switch {
							case well || which != method:
							case does == nil:
								well = true
								log.Info("inner")
								well = false
							default:
								does(free)
							}
						}
					}
					log = safelog.New(slog.New(broken{slog.NewTextHandler(&out, nil), fails("Enabled"), fails("Handle"), fails("WithAttrs"), fails("WithGroup")}))
					began := time.Now()
					for range 3 {
						log.With("key", "value").WithGroup("g").Info("during", "k", "v")
					}
					log.Debug("too fine")
					if took := time.Since(began); took > 4*safelog.Limit {
						t.Errorf("four records took %v", took)
					}
					close(free)
					synctest.Wait()
					time.Sleep(safelog.Limit) // a call that waited for its turn
					synctest.Wait()
					well = true
					log.With("key", "value").WithGroup("g").Info("after", "k", "v")
					s := out.String()
					if !strings.Contains(s, "level=INFO msg=after key=value g.k=v\n") || strings.Contains(s, "too fine") {
						t.Errorf("the log is %s", s)
					}
					if lost := strings.Count(s, "msg=during") < 3; lost && !strings.Contains(s, "records of the log may be missing") {
						t.Errorf("the log is %s", s)
					}
				})
			})
		}
	}
}

// Without faults the handler gets what the caller wrote, in its order, and nothing that its level
// leaves out.
func TestTheLogIsTheSame(t *testing.T) {
	t.Parallel()
	write := func(wrap func(*slog.Logger) *slog.Logger) string {
		var out bytes.Buffer
		log := wrap(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{AddSource: true, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		log.Info("a", "n", 1)
		log.Debug("b")
		log = log.With("unit", "x.service").WithGroup("g").With("k", "v")
		log.Warn("c", "err", context.Canceled)
		log.WithGroup("").Error("d", slog.Group("h", "x", 1))
		return out.String()
	}
	want := write(func(l *slog.Logger) *slog.Logger { return l })
	if got := write(func(l *slog.Logger) *slog.Logger { return safelog.New(safelog.New(l)) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	safelog.New(nil).Error("nobody reads it")
}
