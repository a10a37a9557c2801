package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
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

func newTokenListCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "list", Short: "List the tokens, newest first, including expired ones", Args: cli.ExactArgs(0),
		Example: `  manager-sim token list --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var answer []byte
			tokens, err := c.Tokens(cmd.Context(), api.WithRaw(&answer))
			if err != nil || c.json {
				return errors.Join(err, write(cmd, answer))
			}
			if len(tokens) == 0 {
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "No tokens.")
				return err
			}
			names, err := c.groupNames(cmd.Context())
			if err != nil {
				return err
			}
			t := newTable(cmd.OutOrStdout(), "TOKEN", "NAME", "ROLE", "GROUPS", "BY", "EXPIRES", "LAST USED")
			for _, k := range tokens {
				for i, id := range k.Groups {
					if name := names[id]; name != "" {
						k.Groups[i] = name
					}
				}
				t.row(k.ID, k.Name, k.Role, strings.Join(k.Groups, ", "), k.CreatedBy, stamp(k.ExpiresAt), stamp(k.LastUsedAt))
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
		Use: "create NAME", Short: "Create a token, and print its secret once", Args: cli.ExactArgs(1, "role"),
		Example: `  manager-sim token create ci --role operator --group 'site one' > ci.token
  manager-sim token create dashboard --role viewer --group '*'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRole(role); err != nil {
				return err
			}
			t := api.NewToken{Name: args[0], Role: role}
			if cmd.Flags().Changed("expires") {
				if err := checkExpires(expires); err != nil {
					return err
				}
				t.ExpiresInSecs = int64(expires.Seconds())
			}
			for _, name := range groups {
				if name == api.AllGroups {
					t.Groups = append(t.Groups, name)
					continue
				}
				id, err := c.groupID(cmd.Context(), name)
				if err != nil {
					return fmt.Errorf("--group: %w", err)
				}
				t.Groups = append(t.Groups, id)
			}
			var answer []byte
			made, err := c.CreateToken(cmd.Context(), t, api.WithRaw(&answer))
			if err != nil || c.json {
				return errors.Join(err, write(cmd, answer))
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "token %s expires at %s\n", cli.Plain(made.ID), stamp(made.ExpiresAt))
			if made.Warning != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", cli.Plain(made.Warning))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), cli.Plain(made.Token))
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&role, "role", "", "viewer, operator, group_admin or super_admin (required)")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "name or id of a group that the role is for, or '*' for all and for nodes without a group; may be repeated")
	cmd.Flags().DurationVar(&expires, "expires", 0, "lifetime, such as 720h: 1h to 9600h, which is 400 days (default: 90 days)")
	return cmd
}

func newTokenRevokeCmd() *cobra.Command {
	var c client
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke TOKEN", Short: "Revoke a token by its id; asks for confirmation on a terminal", Args: cli.ExactArgs(1),
		Example: `  manager-sim token revoke 3f9a0c1e2b4d5566`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := cli.Confirm(cmd, yes, fmt.Sprintf("This revokes token %s, and the tokens that were created with it: programs that use them are refused at once.", args[0]))
			if err != nil {
				return err
			}
			if err := c.RevokeToken(cmd.Context(), args[0], ""); err != nil || c.json {
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
