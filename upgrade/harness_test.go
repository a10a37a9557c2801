package upgrade

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// published are the releases of all tests, made once.
var published struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	// A stager looks at every file of the CA store. The first one, with all authorities, is enough here.
	os.Setenv("SSL_CERT_DIR", os.DevNull)
	code := m.Run()
	if published.dir != "" {
		os.RemoveAll(published.dir)
	}
	os.Exit(code)
}

func publishAll() error {
	dir, err := os.MkdirTemp("", "upgrade-releases")
	if err != nil {
		return err
	}
	published.dir = dir
	// The self-check waits while there is a file "wait" beside the program's root. The check
	// of a config.toml exits with the code that the file names.
	program := filepath.Join(dir, "program")
	const script = "#!/bin/sh\nif [ \"$1 $2\" = 'config check' ]; then sed -n 's/^# exit //p' \"$3\"; exit $(sed -n 's/^# exit \\([0-9]*\\).*/\\1/p' \"$3\"); fi\n" +
		"[ \"$1\" = version ] || exit 1\n[ -p ../../wait ] && : >../../wait && : <../../wait\nexit 0\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		return err
	}
	for _, o := range []fakerelease.Options{
		{Version: "1.0.0"},
		{Version: "1.1.0", RollbackFloor: "1.1.0"},
		{Version: "1.2.0", Channel: "beta"},
		{Version: "1.3.0", DeviceType: "camera"},
		{Version: "1.4.0", Fault: fakerelease.BadChecksum},
		{Version: "1.5.0", Variant: "gpu"},
		{Version: "1.7.0"},
		{Version: "1.8.0", Commands: []string{release.CommandConfigCheck}},
		{Version: "1.6.0", Fault: fakerelease.WrongIdentity},
	} {
		o.Binary = program
		_, e := fakerelease.Publish(dir, o)
		err = errors.Join(err, e)
	}
	return err
}

// trusted returns the trust in the published releases, served through wrap.
func trusted(t *testing.T, wrap func(http.Handler) http.Handler) fakerelease.Trust {
	t.Helper()
	published.once.Do(func() { published.err = publishAll() })
	if published.err != nil {
		t.Fatal(published.err)
	}
	h := fakerelease.Handler(published.dir)
	if wrap != nil {
		h = wrap(h)
	}
	host := httptest.NewTLSServer(h)
	t.Cleanup(host.Close)
	trust, err := fakerelease.NewTrust(published.dir, host.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// emptyNode returns the settings of a node that has no version.
func emptyNode(t *testing.T) config.Settings {
	t.Helper()
	return emptyNodeAt(t, t.TempDir())
}

func emptyNodeAt(t *testing.T, root string) config.Settings {
	t.Helper()
	c := config.Config{
		Service: config.Service{DeviceType: "edge", InstallRoot: root, Binary: "edge-agent"},
		Manager: config.Manager{URLs: []string{"wss://manager.example"}, Proxy: config.NewSecret("none")},
		Upgrade: config.Upgrade{Enabled: true},
	}
	s, err := c.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nodeWith returns the settings of a node whose good version is v, with floor.
func nodeWith(t *testing.T, v string, floor string) config.Settings {
	t.Helper()
	return nodeAt(t, t.TempDir(), v, floor)
}

func nodeAt(t *testing.T, root, v, floor string) config.Settings {
	t.Helper()
	n := emptyNodeAt(t, root)
	good := release.MustVersion(v)
	tr := state.Trial{Target: good}
	if floor != "" {
		tr.RollbackFloor = release.MustVersion(floor)
	}
	if err := os.MkdirAll(n.Layout.Version(good), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Layout.Version(good), n.Service.Binary), []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	do(t, n.Layout, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		t.LastGood, t.Current = good, good
		return state.Install(s, tr, time.Now()), t, nil
	})
	return n
}

func do(t *testing.T, l state.Layout, change state.Change) state.Result {
	t.Helper()
	res, err := l.Do(t.Context(), change)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func pipeline(t *testing.T, n *config.Settings, trust stage.Trust) *Pipeline {
	t.Helper()
	p, err := newPipeline(Config{Node: n}, trust)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stick returns the directory with the files of a published release.
func stick(v string) string {
	return filepath.Join(published.dir, "www", fakerelease.DefaultRepository, "releases", "download", "v"+v)
}
