package probe_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/probe"
)

// A service is healthy while its URL answers with a status of 200 to 299.
func ExampleRun() {
	healthy := true
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer service.Close()
	health := config.Health{HTTP: service.URL + "/healthz", TimeoutSecs: 5}

	fmt.Println(probe.Run(context.Background(), health, nil))
	healthy = false
	err := probe.Run(context.Background(), health, nil)
	fmt.Println(strings.ReplaceAll(err.Error(), service.URL, "http://127.0.0.1:8080"))
	// Output:
	// <nil>
	// health.http: http://127.0.0.1:8080/healthz answers 503 Service Unavailable
}

// A command is healthy if it exits with 0. The error has the end of its output.
func ExampleRun_command() {
	health := config.Health{Command: []string{"/bin/sh", "-c", "echo the disk is full; exit 1"}, TimeoutSecs: 5}
	fmt.Println(probe.Run(context.Background(), health, nil))
	// Output: health.command: exit status 1: the disk is full
}
