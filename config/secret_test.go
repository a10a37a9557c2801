package config

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// Nothing prints a secret, wherever it stands.
func TestASecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	token := NewSecret("hunter2")
	c := Config{Manager: Manager{RegistrationToken: token, Proxy: NewSecret("http://u:hunter2@x")}}
	s, _ := c.Resolve()
	type within struct{ config Config }
	type deep struct {
		pointer  *within
		value    within
		list     []Secret
		table    map[string]Secret
		any      any
		settings struct{ s Settings }
	}
	shown := []any{token, &token, c, &c, s, &s, within{c}, &within{c}, []within{{c}}, map[string]within{"": {c}}, map[Secret]int{token: 1},
		struct{ s Secret }{token}, struct{ s *Secret }{&token}, &struct{ s Secret }{token}, reflect.ValueOf(within{c}).Field(0), reflect.ValueOf(struct{ s Secret }{token}).Field(0),
		deep{&within{c}, within{c}, []Secret{token}, map[string]Secret{"": token}, token, struct{ s Settings }{s}}}
	var out bytes.Buffer
	for _, v := range shown {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%#x", "%d", "%p", "%t", "%z", "%w"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("x", "value", v, "group", slog.GroupValue(slog.Any("value", v)))
		}
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	b, err := toml.Marshal(c)
	if err != nil || !strings.Contains(string(b), "registration_token = '(hidden)'") {
		t.Errorf("%s, %v", b, err)
	}
	out.Write(b)
	if err := xml.NewEncoder(&out).Encode(struct {
		XMLName   xml.Name `xml:"x"`
		Attribute Secret   `xml:"a,attr"`
		Manager   Manager
	}{Attribute: token, Manager: c.Manager}); err != nil {
		t.Error(err)
	}
	var encoded bytes.Buffer
	if err := gob.NewEncoder(&encoded).Encode(c); err != nil {
		t.Fatal(err)
	}
	out.Write(encoded.Bytes())
	var decoded Config
	if err := gob.NewDecoder(&encoded).Decode(&decoded); err != nil || !decoded.Manager.RegistrationToken.IsZero() {
		t.Errorf("%q, %v", decoded.Manager.RegistrationToken.Reveal(), err)
	}
	for _, no := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), strings.Trim(fmt.Sprint([]byte("hunter2")), "[]")} {
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, no) {
				t.Errorf("%s is in %s", no, line)
			}
		}
	}
}

// A Secret is compared by its text, and an empty one is left out of JSON.
func TestTheTextOfASecret(t *testing.T) {
	t.Parallel()
	a, b, zero := NewSecret("hunter2"), NewSecret(strings.Clone("hunter2")), NewSecret("")
	if a.Reveal() != "hunter2" || !a.Equal(b) || !reflect.DeepEqual(a, b) || a.Equal(NewSecret("x")) || a.IsZero() {
		t.Error("the text is lost")
	}
	if !zero.IsZero() || zero != (Secret{}) || zero.Reveal() != "" || zero.String() != "" {
		t.Error("the empty text is not the zero Secret")
	}
	var m Manager
	if b, err := json.Marshal(m); err != nil || strings.Contains(string(b), "token") || strings.Contains(string(b), "proxy") {
		t.Errorf("%s, %v", b, err)
	}
	if err := json.Unmarshal([]byte(`{"proxy": "hunter2"}`), &m); err != nil || !m.Proxy.Equal(a) {
		t.Error(err)
	}
}

// In TOML and JSON a secret is a string, and nothing else. No error quotes it.
func TestASecretIsAString(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"registration_token", "proxy"} {
		for _, value := range []string{"4242", "4.2e2", "true", "1979-05-27", "07:32:00", `["hunter2"]`, "{hunter2 = 1}"} {
			for _, doc := range []string{"[manager]\n" + key + " = " + value, "manager." + key + " = " + value, "manager = {" + key + " = " + value + "}", "[MANAGER]\n" + strings.ToUpper(key) + " = " + value} {
				var c Config
				err := decode([]byte(doc), &c)
				if err == nil {
					t.Errorf("%q is accepted", doc)
				} else if err := explainTOML(err, doc); strings.Contains(err.Error(), value) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "struct field") {
					t.Errorf("%q: %v", doc, err)
				}
			}
		}
		for _, value := range []string{`"a\\b"`, `'a\b'`, `"""a\\b"""`} {
			c, err := FromTOML([]byte("service.install_root = \"/opt/x\"\n[manager]\n" + key + " = " + value))
			if got := c.Manager.RegistrationToken.Reveal() + c.Manager.Proxy.Reveal(); err != nil || got != `a\b` {
				t.Errorf("%s: %q, %v", value, got, err)
			}
		}
		for _, value := range []string{"4242", "true", `["hunter2"]`, `{"hunter2": 1}`} {
			_, err := FromJSON(fmt.Appendf(nil, `{"service": {"install_root": "/opt/x"}, "manager": {%q: %s}}`, key, value))
			if es := Errors(err); len(es) != 1 || es[0].Key != "manager."+key || strings.Contains(err.Error(), value) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", value, err)
			}
		}
	}
}
