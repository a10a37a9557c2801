package api_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
)

// Every route of the manager has a method of the client, and every method a route.
func TestEveryRouteHasAMethod(t *testing.T) {
	t.Parallel()
	st, err := store.Open(t.Context(), t.TempDir()+"/db")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	m, err := server.New(server.Config{Store: st, Log: zerolog.Nop(), PasswordMemory: 32, AdminToken: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c := &api.Client{BaseURL: "http://manager", Token: "secret", HTTP: &http.Client{Transport: api.InProcess(m)}}
	text, err := c.OpenAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	routes := map[string]*regexp.Regexp{}
	for path, methods := range doc.Paths {
		for method := range methods {
			name := strings.ToUpper(method) + " " + path
			routes[name] = regexp.MustCompile("^" + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(name), "[^/]+") + "$")
		}
	}
	called := map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, of := range routes {
			if of.MatchString(r.Method + " " + r.URL.Path) {
				called[name] = true
				w.Write([]byte("{}"))
				return
			}
		}
		t.Errorf("there is no %s %s", r.Method, r.URL.Path)
	}))
	defer s.Close()
	ctx, c := t.Context(), &api.Client{BaseURL: s.URL}
	calls := []func() error{
		func() error { _, err := c.Nodes(ctx, api.NodeQuery{}); return err },
		func() error { _, err := c.Node(ctx, "n"); return err },
		func() error { _, err := c.Commands(ctx, "n", 1, ""); return err },
		func() error { _, err := c.Connections(ctx, "n"); return err },
		func() error { _, err := c.UpgradeNode(ctx, "n", api.NodeUpgrade{}); return err },
		func() error { return c.RemoveNode(ctx, "n", "why") },
		func() error { _, err := c.ResolveNode(ctx, "n"); return err },
		func() error { _, err := c.WithdrawUpgrade(ctx, "n", api.Withdrawal{CommandID: "c"}); return err },
		func() error { _, err := c.SendAction(ctx, "n", api.ActionRequest{}); return err },
		func() error { _, err := c.Actions(ctx, "n", 1, ""); return err },
		func() error { _, err := c.Action(ctx, "n", "c"); return err },
		func() error { _, err := c.WithdrawAction(ctx, "n", "c", "why"); return err },
		func() error { return c.SetGroup(ctx, "n", "g") },
		func() error { _, err := c.PendingNodes(ctx); return err },
		func() error { _, err := c.AcceptPendingNode(ctx, "n", ""); return err },
		func() error { return c.DismissPendingNode(ctx, "n") },
		func() error { _, err := c.NewestEvent(ctx); return err },
		func() error {
			stream, err := c.Stream(ctx, 0)
			if err == nil {
				err = stream.Close()
			}
			return err
		},
		func() error { _, err := c.Releases(ctx, "edge", "beta"); return err },
		func() error { _, err := c.Groups(ctx); return err },
		func() error { _, err := c.CreateGroup(ctx, "g"); return err },
		func() error { _, err := c.Group(ctx, "g"); return err },
		func() error { _, err := c.UpgradeGroup(ctx, "g", api.RolloutRequest{}); return err },
		func() error { _, err := c.AllRollouts(ctx, api.RolloutQuery{}); return err },
		func() error { _, err := c.Rollout(ctx, "r"); return err },
		func() error { _, err := c.ActOnRollout(ctx, "r", api.ActPause, api.RolloutAct{}); return err },
		func() error { _, err := c.AuditLog(ctx, api.AuditQuery{Actor: "a"}); return err },
		func() error { _, err := c.Users(ctx); return err },
		func() error { _, err := c.CreateUser(ctx, api.NewUser{}); return err },
		func() error { _, err := c.UpdateUser(ctx, "u", api.UserChange{}); return err },
		func() error { return c.RemoveUser(ctx, "u", "") },
		func() error { return c.ChangePassword(ctx, api.PasswordChange{}) },
		func() error { _, err := c.Tokens(ctx); return err },
		func() error { _, err := c.CreateToken(ctx, api.NewToken{}); return err },
		func() error { return c.RevokeToken(ctx, "t", "") },
		func() error { _, err := c.Metrics(ctx); return err },
	}
	for i, call := range calls {
		if err := call(); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		if !called[name] {
			t.Errorf("no method calls %s", name)
		}
	}
}
