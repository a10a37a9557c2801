package agent

import (
	"testing"
	"time"
)

func TestParseConnection(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 22, 0, 1, 0, time.UTC)
	for _, c := range []Connection{
		{Connected: true, URL: "wss://m:8443/ws/node", Since: at},
		{URL: "wss://m:8443/ws/node", Since: at, Problem: "connect: refused; twice: really"},
	} {
		text := statusText{service: "1.0.0 runs", upgrade: "staging 1.1.0 (download)", manager: c.String()}.String()
		if got, ok := ParseConnection(text); !ok || got != c || ParseUnable(text) != "" {
			t.Errorf("%q: %+v, %t, unable %q", text, got, ok, ParseUnable(text))
		}
		text = statusText{service: "1.0.0 runs", unavailable: noUpgrades + "a; b: c", manager: c.String()}.String()
		if got, ok := ParseConnection(text); !ok || got != c || ParseUnable(text) != "a; b: c" {
			t.Errorf("%q: %+v, %t, unable %q", text, got, ok, ParseUnable(text))
		}
	}
	none := statusText{service: "1.0.0 runs", unavailable: noUpgrades + "a; b: c", manager: NoManager}.String()
	if _, ok := ParseConnection(none); ok || ParseUnable(none) != "a; b: c" {
		t.Errorf("%q: a connection %t, unable %q", none, ok, ParseUnable(none))
	}
	for _, text := range []string{"", "1.0.0 runs", "1.0.0 runs; connected to wss://m", "not connected to x since yesterday: y"} {
		if c, ok := ParseConnection(text); ok {
			t.Errorf("%q: %+v", text, c)
		}
	}
}
