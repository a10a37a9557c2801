package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
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
		switch own.Player.Colour {
		case "":
			err = cmp.Or(err, errors.New("player.Colour is missing"))
		case "panics":
			var none []int
			_ = none[len(none)]
		case "ends":
			runtime.Goexit()
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
	if err != nil || s.DrainTime.Seconds() != 7 || w.Accepted.Reveal() != doc(7, "red") || w.Withhold != "" || len(w.List) > 0 {
		t.Fatalf("%v, %v, %+v", s.DrainTime, err, w)
	}
	write(t, l.AcceptedConfig(), w.Accepted.Reveal(), 0o600)
	for text, want := range map[string]string{
		doc(-5, "blue"):                "upgrade.drain_secs = -5 is outside 0 to 3600 seconds",
		doc(9, ""):                     "player.Colour is missing",
		doc(9, "panics"):               "the function that decodes it panicked in github.com/bilbycast/edge-agent/config.TestAFileOfTheServicesOwn",
		doc(9, "ends"):                 "the function that decodes it ended its goroutine",
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
		if err != nil || s.DrainTime.Seconds() != 7 || own.Player.Colour != "red" || !w.Accepted.IsZero() || !strings.Contains(w.Withhold, want) || strings.Contains(w.Withhold, "hunter2") {
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

// A function that does not return is given up, and an Opener of the author's cannot panic.
func TestAnOpenerThatMisbehaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		for want, open := range map[string]Opener{
			"did not return within 30s":         func(string) (Settings, Warnings, error) { <-hang; return Settings{}, Warnings{}, nil },
			"panicked in ":                      func(string) (Settings, Warnings, error) { panic("no table") },
			"(openwith_test.go:":                func(string) (Settings, Warnings, error) { panic("no table") },
			"ended its goroutine":               func(string) (Settings, Warnings, error) { runtime.Goexit(); return Settings{}, Warnings{}, nil },
			"no file here":                      func(string) (Settings, Warnings, error) { return Settings{}, Warnings{}, errors.New("no file here") },
			"open /none: no such file":          nil,
			"%!v(PANIC=Error method: no words)": func(string) (Settings, Warnings, error) { panic(wordless{}) },
		} {
			if _, _, err := open.Open("/none"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		close(hang)
	})
}

type wordless struct{}

func (wordless) Error() string { panic("no words") }

// A function that hangs on the present file, and not on the copy, leaves time for the copy, also
// where the daemon limits the whole.
func TestADecoderThatHangsOnTheFile(t *testing.T) {
	t.Parallel()
	l, text := registeredNode(t)
	path := filepath.Join(l.Root(), "own.toml")
	write(t, path, text+"# hangs\n", 0o600)
	write(t, l.AcceptedConfig(), text, 0o600)
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		_, w, err := OpenWith(func(doc []byte) (Config, error) {
			if strings.HasSuffix(string(doc), "# hangs\n") {
				<-hang
			}
			return FromTOML(doc)
		}).Open(path)
		if err != nil || !strings.Contains(w.Withhold, "did not return within 10s") {
			t.Errorf("%v, %+v", err, w)
		}
	})
}
