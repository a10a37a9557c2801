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
	// What a manager says is no part of the text.
	said := "503 ; connected to wss://x since 2026-01-01T00:00:00Z; " + noUpgrades + "x; " + NoManager
	for _, w := range []statusText{{service: said}, {upgrade: said}, {unavailable: noUpgrades + said}} {
		w.manager = Connection{URL: "wss://m", Since: at, Problem: said}.String()
		if got, ok := ParseConnection(w.String()); !ok || got.Connected || got.URL != "wss://m" || w.unavailable == "" && ParseUnable(w.String()) != "" {
			t.Errorf("%q: %+v, %t, unable %q", w, got, ok, ParseUnable(w.String()))
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
