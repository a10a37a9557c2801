package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Each key that breaks its rule is in the error of Resolve, with the rule.
func TestErrorsHaveKeyAndRule(t *testing.T) {
	t.Parallel()
	minus := -1
	c := Config{
		Service: Service{DeviceType: "edge", InstallRoot: "relative"},
		Manager: Manager{URLs: []string{"http://x"}, Proxy: NewSecret("ftp://user:hunter2@x"), CertFingerprint: Pins{"x"}},
		Health:  Health{HTTP: "x"},
		Upgrade: Upgrade{DrainSecs: &minus, MinVersion: "x"},
	}
	_, err := c.Resolve()
	var got []string
	for _, e := range Errors(err) {
		got = append(got, e.Key)
		if e.Rule == "" || !strings.Contains(e.Error(), e.Key) || !strings.HasSuffix(e.Error(), e.Rule) || strings.Contains(e.Error(), "hunter2") {
			t.Errorf("%s: rule %q, text %q", e.Key, e.Rule, e)
		}
		if !strings.Contains(err.Error(), e.Error()) {
			t.Errorf("%q is not in %q", e, err)
		}
	}
	want := []string{"service.install_root", "manager.proxy", "manager.urls", "manager.cert_fingerprint", "health.http", "upgrade.drain_secs", "upgrade.min_version"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	var first *Error
	if !errors.As(err, &first) || first.Key != want[0] {
		t.Errorf("errors.As finds %v", first)
	}
}

// A rule that follows from another key is not stated while that key is wrong.
func TestTheHoldOfAWrongWindow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		window int
		hold   *int
		want   string // the rules
	}{
		{9, new(500), "9 is outside 10 to 86400 seconds"},
		{-100, nil, "-100 is outside 10 to 86400 seconds"},
		{86401, new(86399), "86401 is outside 10 to 86400 seconds"},
		{1, new(-1), "1 is outside 10 to 86400 seconds, -1 is outside 0 to 86399 seconds"},
		{1, new(86400), "1 is outside 10 to 86400 seconds, 86400 is outside 0 to 86399 seconds"},
		{600, new(600), "600 is outside 0 to 599 seconds"},
	} {
		c := valid(t)
		c.Upgrade.BootHealthWindowSecs, c.Upgrade.HealthHoldSecs = tt.window, tt.hold
		_, err := c.Resolve()
		var rules []string
		for _, e := range Errors(err) {
			rules = append(rules, e.Rule)
		}
		if got := strings.Join(rules, ", "); got != tt.want {
			t.Errorf("%d: %s, want %s", tt.window, got, tt.want)
		}
	}
}

// An error of a file has its key, too.
func TestErrorsOfAFileHaveTheirKey(t *testing.T) {
	t.Parallel()
	const good = "[service]\ndevice_type = \"edge\"\n[manager]\nurls = []\n"
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want []string
	}{
		"unknown keys":     {good + "a = 1\n[upgrade]\nenable = true\n", 0o600, []string{"manager.a", "upgrade.enable"}},
		"a wrong type":     {good + "[upgrade]\nenabled = \"yes\"\n", 0o600, []string{"upgrade.enabled"}},
		"a wrong number":   {good + "[upgrade]\nkeep_versions = 1\n", 0o600, []string{"upgrade.keep_versions"}},
		"no device type":   {"[manager]\nurls = []\n", 0o600, []string{"service.device_type"}},
		"mode":             {good + "registration_token = \"hunter2\"\n", 0o644, []string{"manager.registration_token"}},
		"not a dependency": {good + "[health]\ndependency = 5\n", 0o600, []string{"health.dependency"}},
		"no TOML":          {"[", 0o600, nil},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		var got []string
		for _, e := range Errors(err) {
			got = append(got, e.Key)
		}
		if err == nil || !slices.Equal(got, tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q of %v, want %q", name, got, err, tt.want)
		}
	}
}

// Resolve changes nothing of the Config, and what a caller changes afterwards does not reach
// the Settings.
func TestResolveSharesNothing(t *testing.T) {
	t.Parallel()
	full := func() Config {
		n, v := 0, uint64(2)
		return Config{
			Service: Service{DeviceType: "edge", InstallRoot: "/opt/x"},
			Manager: Manager{URLs: []string{"wss://a"}, CertFingerprint: Pins{strings.Repeat("5a", 32)}, KeyFingerprint: Pins{strings.Repeat("5b", 32)}},
			Health:  Health{Command: []string{"/bin/true"}, Dependency: Dependency{"/bin/true", "x"}},
			Upgrade: Upgrade{AllowedChannels: []string{"stable"}, RollbackGrace: &v, RollbackMajors: []uint64{1}, HealthHoldSecs: &n, DrainSecs: &n},
		}
	}
	c := full()
	s, err := c.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, full()) {
		t.Errorf("Resolve changed it: %+v", c)
	}
	want := reflect.ValueOf(s.Config)
	var scribble func(v reflect.Value)
	scribble = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				scribble(v.Field(i))
			}
		case reflect.Slice:
			for i := range v.Len() {
				v.Index(i).SetZero()
			}
		case reflect.Pointer:
			if !v.IsNil() {
				v.Elem().SetZero()
			}
		}
	}
	before, _ := full().Resolve()
	scribble(reflect.ValueOf(&c).Elem())
	if !reflect.DeepEqual(want.Interface(), before.Config) || !reflect.DeepEqual(s.Policy, before.Policy) {
		t.Errorf("a change of the Config reached the Settings: %+v", s.Config)
	}
}
