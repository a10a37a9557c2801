package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// severities are what an event can have, lightest first.
var severities = []string{string(release.Info), string(release.Minor), string(release.Warning), string(release.Major), string(release.Critical)}

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
	f.BoolVar(&e.following, "follow", false, "continue with what happens from now on")
	f.StringVar(&e.node, "node", "", "of this node only (its id, or 4 or more characters of it)")
	f.StringVar(&e.severity, "severity", "", "of this severity only: "+strings.Join(severities, ", "))
	f.StringVar(&e.search, "search", "", "with this text in the message or the code only")
	return cmd
}

// events is one call of the command.
type events struct {
	client
	following              bool
	node, severity, search string
}

func (e *events) run(cmd *cobra.Command) error {
	if e.severity != "" && !slices.Contains(severities, e.severity) {
		return cli.Usage(fmt.Errorf("--severity %q is none of %s", e.severity, strings.Join(severities, ", ")))
	}
	if cmd.Flags().Changed("node") {
		id, err := e.anyNodeID(cmd.Context(), e.node)
		if err != nil {
			return fmt.Errorf("--node: %w", err)
		}
		e.node = id
	}
	q := url.Values{}
	for k, v := range map[string]string{"node_id": e.node, "severity": e.severity, "search": e.search} {
		if v != "" {
			q.Set(k, v)
		}
	}
	var page struct {
		Events []record `json:"events"`
	}
	b, err := e.call(cmd.Context(), http.MethodGet, "/api/v1/events?"+q.Encode(), nil, &page)
	if err != nil {
		return err
	}
	if len(page.Events) == 0 && !e.following {
		fmt.Fprintln(cmd.ErrOrStderr(), "No events match.")
	}
	if !e.following && e.json {
		return write(cmd, b)
	}
	if !e.json {
		for _, r := range slices.Backward(page.Events) {
			e.line(cmd, r)
		}
	}
	if !e.following {
		return nil
	}
	err = e.follow(cmd, cmd.Context(), &watch{
		begin: func() error { return nil },
		record: func(r record, raw []byte) (bool, error) {
			switch {
			case !e.match(r):
				return false, nil
			case e.json:
				return false, write(cmd, append(raw, '\n'))
			}
			e.line(cmd, r)
			return false, nil
		},
	})
	if cmd.Context().Err() != nil {
		return nil // Ctrl-C is how following ends
	}
	return err
}

// match does for the stream what the manager does for the list.
func (e *events) match(r record) bool {
	contains := func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(e.search)) }
	return r.Type == "event" && (e.node == "" || r.NodeID == e.node) && (e.severity == "" || r.Severity == e.severity) &&
		(contains(r.Message) || contains(r.ErrorCode))
}

func (e *events) line(cmd *cobra.Command, r record) {
	fmt.Fprintf(cmd.OutOrStdout(), "%s  %-8s  %s  %-22s %s\n", cli.Plain(r.Time), cli.Plain(r.Severity), cli.Plain(r.NodeID), cli.Plain(r.ErrorCode), cli.Plain(r.Message))
}
