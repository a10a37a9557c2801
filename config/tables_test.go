package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

const ownTOML = `
colours = ["red"]
[service]
name = "player"
device_type = "player"
install_root = "/opt/player"
[player]
enabled = "what the agent does not know"
[manager]
urls = ["wss://manager.example:8443"]
registration_token = "hunter2"
proxy = "http://u:hunter3@proxy.example:3128"
key_fingerprint = "aa"
[upgrade]
enabled = true
drain_secs = 20
[health]
command = ["/bin/true"]
dependency = "http://127.0.0.1:1/"
`

const ownJSON = `{
"colours": ["red"],
"service": {"name": "player", "device_type": "player", "install_root": "/opt/player"},
"player": {"enabled": "what the agent does not know"},
"manager": {"urls": ["wss://manager.example:8443"], "registration_token": "hunter2", "proxy": "http://u:hunter3@proxy.example:3128", "key_fingerprint": "aa"},
"upgrade": {"enabled": true, "drain_secs": 20},
"health": {"command": ["/bin/true"], "dependency": "http://127.0.0.1:1/"}
}`

// The tables of a larger document are those of config.toml, in TOML and in JSON.
func TestTablesOfALargerDocument(t *testing.T) {
	t.Parallel()
	want := Config{
		Service: Service{Name: "player", DeviceType: "player", InstallRoot: "/opt/player"},
		Manager: Manager{URLs: []string{"wss://manager.example:8443"}, RegistrationToken: NewSecret("hunter2"), Proxy: NewSecret("http://u:hunter3@proxy.example:3128"), KeyFingerprint: Pins{"aa"}},
		Upgrade: Upgrade{Enabled: true, DrainSecs: new(20)},
		Health:  Health{Command: []string{"/bin/true"}},
	}
	if err := want.Health.Dependency.UnmarshalText([]byte("http://127.0.0.1:1/")); err != nil {
		t.Fatal(err)
	}
	fromTOML, err := FromTOML([]byte(ownTOML))
	if d := cmp.Diff(want, fromTOML); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	fromJSON, err := FromJSON([]byte(ownJSON))
	if d := cmp.Diff(want, fromJSON); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	var embedded struct {
		Config
		Player struct{ Enabled string }
	}
	if err := toml.Unmarshal([]byte(ownTOML), &embedded); err != nil || *embedded.Upgrade.DrainSecs != 20 || embedded.Player.Enabled == "" {
		t.Errorf("%+v, %v", embedded, err)
	}
}

// A table whose name is nearly one of ours is a mistake, and one that is not a table is not ours.
func TestTablesWithNearNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"upgrades": "upgrade", "Upgrade": "upgrade", "UPGRADES": "upgrade", "Service": "service", "services": "service",
		"managers": "manager", "Manager": "manager", "HEALTH": "health", "healths": "health", "servic": "service", "helath": "health", "Heatlh": "health", "manger": "manager", "upgarde": "upgrade", "upgrape": "upgrade", "ervice": "service",
		"upgrader": "", "heal": "", "s": "", "healthz": "", "health2": "", "healthss": "", "mangers": ""} {
		for doc, read := range map[string]func([]byte) (Config, error){
			ownTOML + "[" + name + "]\nenabled = false":                             FromTOML,
			name + ".enabled = false\n" + ownTOML:                                   FromTOML,
			name + " = {enabled = false}\n" + ownTOML:                               FromTOML,
			`{"` + name + `": {"enabled": false},` + strings.TrimSpace(ownJSON)[1:]: FromJSON,
			strings.TrimSpace(ownJSON[:len(ownJSON)-1]) + `,"` + name + `": { } }`:  FromJSON,
		} {
			c, err := read([]byte(doc))
			es := Errors(err)
			if want == "" && err != nil || want != "" && (len(es) != 1 || es[0].Key != name || !strings.Contains(es[0].Rule, `"`+want+`"`) || c.Upgrade.Enabled) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
	if _, err := FromTOML([]byte("upgrades = 3\nservices = [\"a\"]\n" + ownTOML + "[[managers]]\n")); err != nil {
		t.Error(err)
	}
	if _, err := FromJSON([]byte(`{"upgrades": 3, "Service": ["a"], "healths": null,` + ownJSON[1:])); err != nil {
		t.Error(err)
	}
}

// Without an install root, which no path gives, a document is not complete.
func TestTablesNeedAnInstallRoot(t *testing.T) {
	t.Parallel()
	for doc, read := range map[string]func([]byte) (Config, error){
		"": FromTOML, "[player]": FromTOML, "[service]\ndevice_type = \"player\"": FromTOML, strings.ReplaceAll(ownTOML, "install_root = \"/opt/player\"", ""): FromTOML,
		"{}": FromJSON, "null": FromJSON, `{"service": {"device_type": "player"}}`: FromJSON, `{"service": null}`: FromJSON,
	} {
		c, err := read([]byte(doc))
		if e, ok := errors.AsType[*Error](err); !ok || e.Key != "service.install_root" || len(Errors(err)) != 1 || c.Service.DeviceType != "" {
			t.Errorf("%q: %v", doc, err)
		}
	}
}

// An error names the key and its rule, and no value.
func TestTablesThatAreWrong(t *testing.T) {
	t.Parallel()
	for doc, key := range map[string]string{
		"[upgrade]\nenable = true":                                     "upgrade.enable",
		"[upgrade]\nenabled = \"yes\"":                                 "upgrade.enabled",
		"[manager]\nregistration_token = 42424242":                     "manager.registration_token",
		"[manager]\nurls = \"wss://m\"":                                "manager.urls",
		`{"upgrade": {"enable": true}}`:                                "upgrade.enable",
		`{"upgrade": {"enabled": "hunter2"}}`:                          "upgrade.enabled",
		`{"manager": {"registration_token": 42424242}}`:                "manager.registration_token",
		`{"manager": {"urls": "hunter2"}}`:                             "manager.urls",
		`{"upgrade": {"enabled": false, "Enabled": true}}`:             "upgrade.Enabled",
		`{"manager": {"Registration_Token": "hunter2"}}`:               "manager.Registration_Token",
		`{"upgrade": ["hunter2"]}`:                                     "upgrade",
		`["hunter2"]`:                                                  "",
		"{":                                                            "",
		"[upgrade":                                                     "",
		"[upgrade]\n#" + strings.Repeat("x", MaxFile):                  "",
		`{"upgrade": {}, "x": "` + strings.Repeat("x", MaxFile) + `"}`: "",
	} {
		read := FromTOML
		if doc[0] == '{' || doc[:2] == `["` {
			read = FromJSON
		}
		c, err := read([]byte(doc))
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "42424242") || strings.Contains(err.Error(), "struct") || c.Upgrade.Enabled {
			t.Errorf("%.80q: %v", doc, err)
			continue
		}
		if es := Errors(err); key != "" && (len(es) != 1 || es[0].Key != key) {
			t.Errorf("%.80q: %v, want the key %s", doc, err, key)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add([]byte(ownTOML))
	f.Add([]byte(ownJSON))
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, read := range []func([]byte) (Config, error){FromTOML, FromJSON} {
			if c, err := read(doc); err == nil {
				c.Resolve()
			}
		}
	})
}
