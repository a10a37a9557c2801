package agent

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/bilbycast/edge-agent/config"
)

// ProbeCommand is the command `probe` of a program that links the agent. It takes the
// arguments of `edge-agent probe --json`, after the name of the command, and writes each
// ProbeStep to w as a line of JSON. The error is nil if one URL at least reached
// StageHeld, and wraps ErrUsage if args are wrong. open reads the configuration; nil: config.Open.
func ProbeCommand(ctx context.Context, version string, open config.Opener, args []string, w io.Writer) error {
	o := ProbeOptions{Version: version}
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error says what is wrong
	path := flags.String("config", "", "")
	flags.Bool("json", true, "")
	flags.StringVar(&o.Credentials, "credentials", "", "")
	flags.Func("manager-key", "", func(s string) error {
		o.Keys = append(o.Keys, strings.Split(s, ",")...)
		return CheckKeys(o.Keys)
	})
	if err := flags.Parse(args); err != nil {
		return &typedError{fmt.Errorf("probe: %w", err), ErrUsage}
	}
	if *path == "" || flags.NArg() > 0 {
		return &typedError{errors.New("probe: use: probe --config FILE [--json] [--credentials FILE] [--manager-key FINGERPRINT ...]"), ErrUsage}
	}
	c, _, err := open.Open(*path)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	lines := json.NewEncoder(w)
	o.Report = func(s ProbeStep) { lines.Encode(s) } // without a reader the error remains
	r, err := Probe(ctx, c.Config, o)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}
