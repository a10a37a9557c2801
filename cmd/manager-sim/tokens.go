package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func newTokenCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "List, create and revoke the bearer tokens of programs",
		Example: `  manager-sim token create ci --role operator --group 'site one' --expires 720h
  manager-sim token list
  manager-sim token revoke 3f9a0c1e2b4d5566`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenListCmd(), newTokenCreateCmd(), newTokenRevokeCmd())
	return cmd
}

// tokenAnswer is a token as the API lists it.
type tokenAnswer struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Role      string   `json:"role"`
	Groups    []string `json:"groups"`
	CreatedBy string   `json:"created_by"`
	ExpiresAt string   `json:"expires_at"`
	LastUsed  string   `json:"last_used_at"`
}

func newTokenListCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "list", Short: "List the tokens, newest first, also those that have expired", Args: cli.ExactArgs(0),
		Example: `  manager-sim token list --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var list struct {
				Tokens []tokenAnswer `json:"tokens"`
			}
			b, err := c.call(cmd.Context(), http.MethodGet, "/api/v1/tokens", nil, &list)
			if err != nil || c.json {
				return errors.Join(err, write(cmd, b))
			}
			if len(list.Tokens) == 0 {
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "No tokens.")
				return err
			}
			names, err := c.groupNames(cmd.Context())
			if err != nil {
				return err
			}
			t := newTable(cmd.OutOrStdout(), "TOKEN", "NAME", "ROLE", "GROUPS", "BY", "EXPIRES", "LAST USED")
			for _, k := range list.Tokens {
				for i, id := range k.Groups {
					if name := names[id]; name != "" {
						k.Groups[i] = name
					}
				}
				t.row(k.ID, k.Name, k.Role, strings.Join(k.Groups, ", "), k.CreatedBy, k.ExpiresAt, k.LastUsed)
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	return cmd
}

func newTokenCreateCmd() *cobra.Command {
	var c client
	var role string
	var groups []string
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a token, and print its secret, which is shown once", Args: cli.ExactArgs(1, "role"),
		Example: `  manager-sim token create ci --role operator --group 'site one' > ci.token`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOneOf("role", role, roles...); err != nil {
				return err
			}
			body := map[string]any{"name": args[0], "role": role}
			if cmd.Flags().Changed("expires") {
				if err := checkExpires(expires); err != nil {
					return err
				}
				body["expires_in_secs"] = int64(expires.Seconds())
			}
			ids := []string{}
			for _, name := range groups {
				id, err := c.groupID(cmd.Context(), name)
				if err != nil {
					return fmt.Errorf("--group: %w", err)
				}
				ids = append(ids, id)
			}
			if len(ids) > 0 {
				body["groups"] = ids
			}
			var made struct {
				Token     string `json:"token"`
				ID        string `json:"id"`
				ExpiresAt string `json:"expires_at"`
				Warning   string `json:"warning"`
			}
			b, err := c.call(cmd.Context(), http.MethodPost, "/api/v1/tokens", body, &made)
			if err != nil || c.json {
				return errors.Join(err, write(cmd, b))
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "token %s expires at %s\n", cli.Plain(made.ID), cli.Plain(made.ExpiresAt))
			if made.Warning != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", cli.Plain(made.Warning))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), cli.Plain(made.Token))
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&role, "role", "", "viewer, operator, group_admin or super_admin (required)")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "name or id of a group that the role is for; may be repeated")
	cmd.Flags().DurationVar(&expires, "expires", 0, "when it ends, like 720h: 1h to 9600h, which is 400 days (default: 90 days)")
	return cmd
}

func newTokenRevokeCmd() *cobra.Command {
	var c client
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke TOKEN", Short: "Revoke a token, by its id, after asking on a terminal", Args: cli.ExactArgs(1),
		Example: `  manager-sim token revoke 3f9a0c1e2b4d5566`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := cli.Confirm(cmd, yes, fmt.Sprintf("This revokes token %s, and the tokens that were created with it: programs that use them are refused at once.", args[0]))
			if err != nil {
				return err
			}
			if _, err := c.call(cmd.Context(), http.MethodDelete, "/api/v1/tokens/"+url.PathEscape(args[0]), nil, nil); err != nil || c.json {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "token %s is revoked\n", cli.Plain(args[0]))
			return err
		},
	}
	c.flags(cmd)
	yesFlag(cmd, &yes)
	return cmd
}
