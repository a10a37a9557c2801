package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// severities returns the severities of events, lightest first.
func severities() []string {
	var names []string
	for _, s := range release.Severities() {
		names = append(names, string(s))
	}
	return names
}

func newEventsCmd() *cobra.Command {
	e := events{}
	cmd := &cobra.Command{
		Use:     "events",
		Short:   "List the newest events of a running manager, or follow them",
		Example: `  manager-sim events --follow --json`,
		Args:    cli.ExactArgs(0),
		RunE:    func(cmd *cobra.Command, args []string) error { return e.run(cmd) },
	}
	e.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&e.following, "follow", false, "then print new events until interrupted")
	f.StringVar(&e.node, "node", "", "only events of this node (its id, or the first 4 or more characters)")
	f.StringVar(&e.severity, "severity", "", "only events of this severity: "+strings.Join(severities(), ", "))
	f.StringVar(&e.search, "search", "", "only events with this text in the message or the code")
	return cmd
}

// events is one call of the command.
type events struct {
	client
	following              bool
	node, severity, search string
}

func (e *events) run(cmd *cobra.Command) error {
	if e.severity != "" {
		if err := checkOneOf("severity", e.severity, severities()...); err != nil {
			return err
		}
	}
	if cmd.Flags().Changed("node") {
		id, err := e.anyNodeID(cmd.Context(), e.node)
		if err != nil {
			return fmt.Errorf("--node: %w", err)
		}
		e.node = id
	}
	var answer []byte
	page, err := e.Events(cmd.Context(), api.EventQuery{NodeID: e.node, Severity: e.severity, Search: e.search}, api.WithRaw(&answer))
	if err != nil {
		return err
	}
	if len(page.Events) == 0 && !e.following {
		fmt.Fprintln(cmd.ErrOrStderr(), "No events match.")
	}
	if !e.following && e.json {
		return write(cmd, answer)
	}
	if !e.json {
		for _, event := range slices.Backward(page.Events) {
			printEvent(cmd, event)
		}
	}
	if !e.following {
		return nil
	}
	err = e.follow(cmd, cmd.Context(), &watch{
		begin: func() error { return nil },
		record: func(r api.Record) (bool, error) {
			switch {
			case !e.match(r):
			case e.json:
				return false, write(cmd, append(r.Raw, '\n'))
			default:
				printEvent(cmd, r.Event())
			}
			return false, nil
		},
	})
	if cmd.Context().Err() != nil {
		return nil // Ctrl-C ends it
	}
	return err
}

// match selects records of the stream as the manager selects events of the list.
func (e *events) match(r api.Record) bool {
	contains := func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(e.search)) }
	return r.Type == api.RecordEvent && (e.node == "" || r.NodeID == e.node) && (e.severity == "" || r.Severity == e.severity) &&
		(contains(r.Message) || contains(r.ErrorCode))
}

func printEvent(cmd *cobra.Command, e api.Event) {
	fmt.Fprintf(cmd.OutOrStdout(), "%s  %-8s  %s  %-22s %s\n", e.Time.Format(time.RFC3339Nano), cli.Plain(e.Severity), cli.Plain(e.NodeID), cli.Plain(e.ErrorCode), cli.Plain(e.Message))
}
