package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A registered node whose own file cannot be used runs with the copy, which the service's own
// part of the file comes from as well, and refuses upgrades with the reason. A node that is not
// registered does not start.
func TestAFileOfTheServicesOwn(t *testing.T) {
	t.Parallel()
	l, _ := registeredNode(t)
	var own struct {
		Player struct{ Colour string }
	}
	player := func(doc []byte) (Config, error) {
		c, err := FromJSON(doc)
		if err == nil {
			err = json.Unmarshal(doc, &own)
		}
		if err == nil && own.Player.Colour == "" {
			err = errors.New("player.Colour is missing")
		}
		return c, err
	}
	path := filepath.Join(l.Root(), "player.json")
	doc := func(drain int, colour string) string {
		return fmt.Sprintf(`{"service": {"name": "player", "device_type": "player", "install_root": %q},
			"manager": {"urls": ["wss://manager.example"], "registration_token": "hunter2"}, "upgrade": {"drain_secs": %d}, "player": {"Colour": %q}}`, l.Root(), drain, colour)
	}
	open := OpenWith(player)
	write(t, path, doc(7, "red"), 0o600)
	s, w, err := open(path)
	if err != nil || s.DrainTime.Seconds() != 7 || string(w.Accepted) != doc(7, "red") || w.Withhold != "" || len(w.List) > 0 {
		t.Fatalf("%v, %v, %+v", s.DrainTime, err, w)
	}
	write(t, l.AcceptedConfig(), string(w.Accepted), 0o600)
	for text, want := range map[string]string{
		doc(-5, "blue"):                "upgrade.drain_secs = -5 is outside 0 to 3600 seconds",
		doc(9, ""):                     "player.Colour is missing",
		`{`:                            "it is no JSON object",
		`{"service": {"nam": "x"}}`:    "service.nam",
		`{"services": {}}`:             `its name must be "service"`,
		"missing":                      "no such file",
		strings.Repeat(" ", MaxFile+1): "too large",
	} {
		if write(t, path, text, 0o600); text == "missing" {
			os.Remove(path)
		}
		s, w, err := open(path)
		if err != nil || s.DrainTime.Seconds() != 7 || own.Player.Colour != "red" || w.Accepted != nil || !strings.Contains(w.Withhold, want) || strings.Contains(w.Withhold, "hunter2") {
			t.Errorf("%.60q: %v, %q, %v, %+v", text, s.DrainTime, own.Player.Colour, err, w)
		}
		if err := os.Rename(l.CredentialsFile(), l.CredentialsFile()+"-"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q, not registered: %v", text, err)
		}
		if err := os.Rename(l.CredentialsFile()+"-", l.CredentialsFile()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path, doc(7, "red"), 0o644)
	if _, w, err := open(path); err != nil || w.Path != path || w.Withhold != "" || len(w.List) != 1 || !strings.Contains(w.List[0].Cause, "others may read its secrets") {
		t.Errorf("%v, %+v", err, w)
	}
}
