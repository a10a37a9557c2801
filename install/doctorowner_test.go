package install

import (
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/systemd"
)

// Doctor compares the owner of the root, User= of the unit and the user database. The
// remedy is install where the root must change its owner, and never names a user that
// does not exist.
func TestDoctorOfOwners(t *testing.T) {
	t.Parallel()
	uid := wantedID(t)
	for name, tt := range map[string]struct {
		owner int
		user  string // User= of the unit
		want  string
	}{
		"no such user":             {lost, "edge-gone", "run: INSTALL --user edge-gone --change-owner; or by hand: X"},
		"no such user, root's":     {0, "edge-gone", "run: INSTALL --user edge-gone --change-owner; or by hand: X"},
		"the uid of nobody":        {lost, wanted, "run: INSTALL --user daemon --change-owner; or by hand: X"},
		"the uid of another user":  {uid, "nobody", "run: INSTALL --user nobody --change-owner; or by hand: X; or, if daemon is the service's user, set User=daemon in the unit"},
		"of root":                  {0, wanted, "run: X"},
		"as root":                  {uid, "", "run: X"},
		"as root, the uid of none": {lost, "", "run: INSTALL --change-owner"},
	} {
		t.Run(name, func(t *testing.T) {
			n, l := keptRoot(t, tt.owner)
			d := &doctor{config: l.ConfigFile(), l: l, unit: n.service(), agent: n.service(), state: systemd.State{Load: "loaded", User: tt.user}}
			d.c.Service.Name, d.c.Service.DeviceType, d.c.Service.InstallRoot = n.Name, "edge", n.Root
			install := "edge-agent install 1.0.0 --device-type edge --name no-such-service --root " + n.Root
			got := strings.ReplaceAll(d.userRemedy(systemd.Problem{Remedy: "run: X"}), install, "INSTALL")
			if got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
			// In attached mode install does nothing.
			d.c.Service.Unit = "app.service"
			if got := d.userRemedy(systemd.Problem{Remedy: "x"}); got != "x" {
				t.Error(got)
			}
		})
	}
}

// A root that belongs to no user is reported, also without a unit. Files of a stranger in
// the user's root are handed over by install, and those of root by chown.
func TestDoctorOfStrangers(t *testing.T) {
	t.Parallel()
	uid := wantedID(t)
	n, l := keptRoot(t, lost)
	d := &doctor{config: l.ConfigFile(), l: l, unit: n.service(), agent: n.service(), user: lost}
	d.c.Service.Name, d.c.Service.DeviceType = n.Name, "edge"
	d.root()
	bad := func() (out []Finding) {
		for _, f := range d.findings {
			if !f.OK {
				out = append(out, f)
			}
		}
		d.findings = nil
		return out
	}
	if f := bad(); len(f) != 1 || f[0].What != "owners" || !strings.Contains(f[0].Cause, "belongs to uid 54321, which no user has") || !strings.Contains(f[0].Remedy, "--change-owner") {
		t.Errorf("%+v", f)
	}
	if uid, note := WrongOwner(t.Context(), l); uid != lost || !strings.Contains(note, "uid 54321, which no user has") {
		t.Errorf("status: %d, %q", uid, note)
	}
	d.state.Load = "not-found"
	if got := d.unitRemedy(systemd.Problem{Remedy: "write it: x"}); !strings.HasPrefix(got, "run: edge-agent install 1.0.0 ") || !strings.HasSuffix(got, "--change-owner; or write it: x") {
		t.Error(got)
	}
	give(t, n.Root, uid)
	if got := d.unitRemedy(systemd.Problem{Remedy: "write it: x"}); !strings.Contains(got, "--user daemon; or") {
		t.Error(got)
	}
	d.user = uint32(uid)
	for by, want := range map[int]string{lost: "--user daemon --change-owner; or by hand: chown -R daemon: ", 0: "run: chown -R daemon: "} {
		if err := os.Chown(l.Versions()+"/1.0.0/edge-agent", by, by); err != nil {
			t.Fatal(err)
		}
		d.root()
		if f := bad(); len(f) != 1 || f[0].What != "owners" || !strings.Contains(f[0].Cause, "1.0.0/edge-agent belongs to") || !strings.Contains(f[0].Remedy, want) {
			t.Errorf("%d: %+v", by, f)
		}
	}
}

// An agent that root starts by hand runs as the owner of the root, and not at all where
// that owner could not use it.
func TestRunAsOwnerRefuses(t *testing.T) {
	uid := wantedID(t)
	n, l := keptRoot(t, uid)
	for name, prep := range map[string]func() error{
		"credentials": func() error { return os.Chown(l.CredentialsFile(), 0, 0) },
		"config":      func() error { return os.Chown(l.ConfigFile(), 0, 0) },
	} {
		give(t, n.Root, uid)
		if err := prep(); err != nil {
			t.Fatal(err)
		}
		t.Setenv("INVOCATION_ID", "")
		warning, err := RunAsOwner(t.Context(), l, l.ConfigFile(), "")
		if err == nil || warning != "" || !strings.Contains(err.Error(), "belongs to root") || !strings.Contains(err.Error(), "chown -R daemon: "+n.Root) {
			t.Errorf("%s: %q, %v", name, warning, err)
		}
		t.Setenv("INVOCATION_ID", "1")
		if warning, err = RunAsOwnerOf(t.Context(), l.ConfigFile()); err != nil || !strings.Contains(warning, "the agent stays root: ") {
			t.Errorf("%s: %q, %v", name, warning, err)
		}
	}
	// Where everything belongs to root, root runs it.
	give(t, n.Root, 0)
	for _, id := range []string{"", "1"} {
		t.Setenv("INVOCATION_ID", id)
		if warning, err := RunAsOwner(t.Context(), l, l.ConfigFile(), "no-such-service.service"); warning != "" || err != nil {
			t.Errorf("root's root: %q, %v", warning, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Fatal("this process gave up root")
	}
}

// A unit gets no group that does not exist, since systemd would not start it.
func TestExistingGroups(t *testing.T) {
	t.Parallel()
	u, notes := ExistingGroups(systemd.Unit{User: "no-such-user", Journal: true})
	if u.Journal != systemd.GroupExists("systemd-journal") || !strings.Contains(strings.Join(notes, "\n"), "no user no-such-user") {
		t.Errorf("%+v, %q", u, notes)
	}
}
