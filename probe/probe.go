// Package probe asks a service whether it is well, and whether what it depends on is there,
// as [health] of config.toml says: by an HTTP request, a command, or both.
//
// A probe changes nothing, follows no redirect, uses no proxy, and ends within
// health.timeout_secs. It does not decide what an unhealthy answer means, but it tells
// an answer from a question that could not be asked.
package probe

import (
	"context"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/trial"
)

// Clock returns the clock by which the certificates of an https address are judged. A nil
// Clock is that of this device, which knows no later time than when this program was built.
type Clock func() cert.Clock

// Run asks what h names whether the service is well. The error says what is wrong, or why
// nobody knows. A Health that names nothing is well.
func Run(ctx context.Context, h config.Health, clock Clock) error {
	_, err := Ask(ctx, h, clock)
	return err
}

// Ask asks what h names whether the service is well. The error says why the answer is not
// trial.Passes. All that h names is asked, at the same time, and the worst answer counts:
// trial.Fails before trial.CannotTell before trial.NotRun. So the result does not depend on
// an order. If ctx ended, it is trial.NotRun.
func Ask(ctx context.Context, h config.Health, clock Clock) (trial.Own, error) {
	own := worst(clock.limited(ctx, h.TimeoutSecs, "health.http", h.HTTP, "health.command", h.Command))
	if err := ctx.Err(); err != nil {
		return trial.NotRun, err
	}
	return own.Own, own.err
}

// BeforeSwap asks the check of the version that runs, whether a trial of another one can
// begin. Afterwards a check that could not be run would say nothing about a version, so it
// says nothing against the upgrade either. One that cannot tell does: it would leave the new
// version without a judge, or with a wrong one.
func BeforeSwap(ctx context.Context, h config.Health, clock Clock) error {
	own, err := Ask(ctx, h, clock)
	switch {
	case own == trial.NotRun && ctx.Err() == nil:
		return nil
	case own == trial.CannotTell:
		return fmt.Errorf("the check cannot tell whether the service is well: %w", err)
	}
	return err
}

// Dependency asks [health] dependency. The error says why it does not answer as it should.
// A Health without a dependency has none that fails.
func Dependency(ctx context.Context, h config.Health, clock Clock) error {
	const key = "health.dependency"
	return worst(clock.limited(ctx, h.TimeoutSecs, key, h.Dependency.URL(), key, h.Dependency.Command())).err
}

// answer is what one question brought. Without Passes it has an error.
type answer struct {
	trial.Own
	err error
}

// limited asks a URL and a command, each within the limit, and returns all answers.
func (c Clock) limited(ctx context.Context, secs int, urlKey, url, commandKey string, args []string) []answer {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(secs)*time.Second,
		fmt.Errorf("no answer within %d s (health.timeout_secs)", secs))
	defer cancel()
	var answers []answer
	got := make(chan answer, 1)
	if url != "" {
		go func() { got <- c.get(ctx, urlKey, url) }()
	}
	if len(args) > 0 {
		answers = append(answers, command(ctx, commandKey, args))
	}
	if url != "" {
		answers = append(answers, <-got)
	}
	return answers
}

// worst returns the answer that counts.
func worst(answers []answer) answer {
	for _, own := range []trial.Own{trial.Fails, trial.CannotTell, trial.NotRun} {
		for _, a := range answers {
			if a.Own == own {
				return a
			}
		}
	}
	return answer{Own: trial.Passes}
}
