//go:build !sim

package rig

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
)

// A service that links the agent carries out a command of the real manager once, whatever
// happens to the manager and to the service meanwhile.
func TestACommandOfTheManagerToAService(t *testing.T) {
	t.Parallel()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.AddToken(t.Context(), secret.Hash("registration")); err != nil {
		t.Fatal(err)
	}
	var now atomic.Pointer[server.Server]
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := now.Load()
		if m == nil {
			http.Error(w, "the manager is down", http.StatusBadGateway)
			return
		}
		m.ServeHTTP(w, r)
	}))
	defer hs.Close()
	manage := func() (stop func()) {
		m, err := server.New(server.Config{Store: st, AdminToken: "admin", Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		now.Store(m)
		return func() { now.Store(nil); m.Close() }
	}
	stopManager := manage()
	defer func() { stopManager() }()
	c := &api.Client{BaseURL: hs.URL, Token: "admin", HTTP: hs.Client()}

	zero := 0
	root := t.TempDir()
	dir := filepath.Join(root, "versions", "1.0.0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"current": "versions/1.0.0", "last-good": "versions/1.0.0"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "edge"), []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	var cfg config.Config
	cfg.Manager = config.Manager{URLs: []string{"ws" + strings.TrimPrefix(hs.URL, "http") + "/ws/node"}, AllowInsecure: true, RegistrationToken: config.NewSecret("registration"), Proxy: config.NewSecret("none")}
	cfg.Service.InstallRoot, cfg.Service.Binary, cfg.Service.DeviceType = root, "edge", "edge"
	cfg.Upgrade.DrainSecs = &zero
	var calls atomic.Int64
	began, goOn := make(chan bool, 10), make(chan bool, 10)
	serve := func() (stop func()) {
		a, err := agent.New(cfg, agent.Options{Version: "1.0.0", Handlers: agent.Handlers{
			"gain": func(ctx context.Context, cmd agent.Command) (any, error) {
				calls.Add(1)
				began <- true
				select {
				case <-goOn:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				return map[string]any{"id": cmd.ID, "in": cmd.Params}, nil
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stopService := serve() // without a watchdog it offers no upgrades, and carries out commands
	defer func() { stopService() }()

	var node api.Node
	until := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Minute); !holds(); <-time.After(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("timeout: %s", what)
			}
		}
	}
	online := func() bool {
		nodes, err := c.AllNodes(t.Context(), api.NodeQuery{})
		if err != nil || len(nodes) != 1 || !nodes[0].Online || len(nodes[0].Actions) != 1 {
			return false
		}
		node = nodes[0]
		return true
	}
	send := func() string {
		t.Helper()
		id, err := c.SendAction(t.Context(), node.ID, api.ActionRequest{Action: "gain", Params: json.RawMessage(`{"db":3}`)})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	over := func(id string) (a api.Action) {
		t.Helper()
		until("the answer to "+id, func() bool {
			var err error
			a, err = c.Action(t.Context(), node.ID, id)
			return err == nil && a.Over()
		})
		return a
	}
	until("the node is online", online)
	goOn <- true
	id := send()
	<-began
	if a := over(id); !a.Success || string(a.Result) != `{"id":"`+id+`","in":{"db":3}}` {
		t.Errorf("%+v: %s", a, a.Result)
	}

	// The manager restarts while the handler runs.
	id = send()
	<-began
	stopManager()
	goOn <- true
	stopManager = manage()
	if a := over(id); !a.Success || len(a.Result) == 0 {
		t.Errorf("over a restart of the manager: %+v", a)
	}

	// The service restarts while the handler runs.
	until("the node is online again", online)
	id = send()
	<-began
	stopService()
	stopService = serve()
	if a := over(id); a.Success || a.ErrorCode != "action_interrupted" {
		t.Errorf("over a restart of the service: %+v", a)
	}
	if n := calls.Load(); n != 3 {
		t.Errorf("3 commands were carried out %d times", n)
	}
}
