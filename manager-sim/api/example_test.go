package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// A program lists the nodes that are offline, and upgrades one.
func ExampleClient() {
	// The transport of a real program is one with the manager's certificate.
	c := api.Client{BaseURL: "http://manager", Token: "secret", HTTP: &http.Client{Transport: api.InProcess(manager())}}
	ctx := context.Background()
	nodes, err := c.AllNodes(ctx, api.NodeQuery{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range nodes {
		if !n.Online {
			fmt.Println(n.ID, "is offline and runs", n.Version)
		}
	}
	_, err = c.UpgradeNode(ctx, "two", api.NodeUpgrade{Version: "1.2.0"}, api.WithIdempotencyKey("job 17"))
	var refused *api.Problem
	if errors.As(err, &refused) {
		fmt.Println(refused.Code+":", refused)
	}
	// Output:
	// one is offline and runs 1.1.0
	// upgrade_in_progress: alice requested 1.2.0; it is staging.
}

// manager stands for a manager with two nodes.
func manager() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/nodes", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"nodes":[{"id":"one","version":"1.1.0"},{"id":"two","version":"1.1.0","online":true}]}`)
	})
	mux.HandleFunc("POST /api/v1/nodes/two/upgrade", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"status":409,"code":"upgrade_in_progress","detail":"alice requested 1.2.0; it is staging."}`)
	})
	return mux
}
