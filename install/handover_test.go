package install

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// wanted is a user that every system has, and lost a uid that none has.
const (
	wanted = "daemon"
	lost   = 54321
	third  = 54323
)

func wantedID(t *testing.T) int {
	t.Helper()
	box.NeedRoot(t)
	uid, _, ok := systemd.LookupUser(wanted)
	if !ok {
		t.Fatalf("no user %s", wanted)
	}
	return int(uid)
}

// keptRoot makes an install root with a version, where every file belongs to uid. It must not
// be below a directory of uid.
func keptRoot(t *testing.T, uid int) (*Node, state.Layout) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	tree(t, root, "versions/1.0.0/edge-agent", "credentials.json", "config.toml", "current -> versions/1.0.0", "last-good -> versions/1.0.0")
	give(t, root, uid)
	l, err := state.At(root)
	if err != nil {
		t.Fatal(err)
	}
	return &Node{Name: "no-such-service", DeviceType: "edge", Root: root, User: wanted, real: root, Out: io.Discard}, l
}

func give(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, uid, uid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A root that needs no change is left alone, root's files are handed over without a
// question, and those of anybody else only after one. A refusal changes nothing.
func TestAgree(t *testing.T) {
	t.Parallel()
	uid := wantedID(t)
	other, _, _ := systemd.LookupUser("nobody")
	for name, tt := range map[string]struct {
		owner int
		prep  func(n *Node, l state.Layout) error
		want  []string // in the error; nil: no question
	}{
		"the user's":     {uid, nil, nil},
		"root's":         {0, nil, nil},
		"a file of root": {uid, func(_ *Node, l state.Layout) error { return os.Chown(l.CredentialsFile(), 0, 0) }, nil},
		"somebody's note": {uid, func(_ *Node, l state.Layout) error {
			tree(t, l.Root(), "note")
			return os.Chown(l.Root()+"/note", third, third)
		}, nil},
		"no user any more":  {lost, nil, []string{"root belongs to uid 54321, which no user has; the service is to run as daemon (uid ", "Nothing was changed", "--change-owner", "give ", " to daemon"}},
		"another program's": {int(other), nil, []string{"root belongs to nobody (uid ", "which may be the user of another program", "--change-owner", "If the service is to run as nobody, give --user nobody instead"}},
		"one file":          {uid, func(_ *Node, l state.Layout) error { return os.Chown(l.CredentialsFile(), lost, lost) }, []string{"credentials.json belongs to uid 54321"}},
		"the program":       {uid, func(_ *Node, l state.Layout) error { return os.Chown(l.Versions()+"/1.0.0/edge-agent", lost, lost) }, []string{"1.0.0/edge-agent belongs to uid 54321"}},
		"root's, with a file of another": {0, func(_ *Node, l state.Layout) error { return os.Chown(l.CredentialsFile(), lost, lost) },
			[]string{"credentials.json belongs to uid 54321"}},
		"no user yet": {lost, func(n *Node, _ state.Layout) error { n.User = "no-such-user"; return nil },
			[]string{"there is no such user", "create the user no-such-user, ", "give "}},
		"root's, and no user yet": {0, func(n *Node, _ state.Layout) error { n.User = "no-such-user"; return nil }, nil},
		"not an install root": {lost, func(_ *Node, l state.Layout) error {
			os.RemoveAll(l.Root())
			tree(t, l.Root(), "README", "src/")
			return os.Chown(l.Root(), lost, lost)
		}, []string{"is no install root", "another --root"}},
		"in a directory of that user": {lost, func(_ *Node, l state.Layout) error { return os.Chown(filepath.Dir(l.Root()), lost, lost) },
			[]string{"who could replace the install root"}},
	} {
		t.Run(name, func(t *testing.T) {
			n, l := keptRoot(t, tt.owner)
			if tt.prep != nil {
				if err := tt.prep(n, l); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := fsutil.Owners(n.real)
			o, err := n.ownership(l)
			if err != nil {
				t.Fatal(err)
			}
			err = n.agree(l, o)
			if (err != nil) != (tt.want != nil) {
				t.Fatalf("%v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %v", want, err)
				}
			}
			if after, _ := fsutil.Owners(n.real); len(after) != len(before) {
				t.Errorf("it changed the owners: %v, before: %v", after, before)
			}
			if tt.want == nil || !strings.Contains(err.Error(), "--change-owner") {
				return
			}
			asked := ""
			n.Confirm = func(question string) bool { asked = question; return false }
			if err := n.agree(l, o); err == nil || !strings.HasSuffix(asked, "?") || !strings.Contains(asked, tt.want[0]) {
				t.Errorf("asked %q, answered no: %v", asked, err)
			}
			n.Confirm = func(string) bool { return true }
			if err := n.agree(l, o); err != nil {
				t.Errorf("answered yes: %v", err)
			}
			n.ChangeOwner, n.Confirm = true, nil
			if err := n.agree(l, o); err != nil {
				t.Errorf("with ChangeOwner: %v", err)
			}
		})
	}
}

// After a handover the user owns the root, and every directory and file of the old owner
// that links in it point to.
func TestHandOver(t *testing.T) {
	t.Parallel()
	uid := wantedID(t)
	for name, owner := range map[string]int{"lost": lost, "root": 0, "the user": uid} {
		t.Run(name, func(t *testing.T) {
			n, l := keptRoot(t, owner)
			outside := filepath.Join(filepath.Dir(n.Root), "outside")
			tree(t, outside, "v/", "secret", "admin.toml")
			if err := os.Rename(l.Versions(), outside+"/v/versions"); err != nil {
				t.Fatal(err)
			}
			for link, to := range map[string]string{l.Versions(): outside + "/v/versions", l.CredentialsFile(): outside + "/secret", l.ConfigFile(): outside + "/admin.toml"} {
				os.Remove(link)
				if err := os.Symlink(to, link); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(outside+"/secret", owner, owner); err != nil {
				t.Fatal(err)
			}
			tree(t, n.Root, "state.json") // of root
			if owner == uid {
				if err := os.Chmod(outside+"/admin.toml", 0o644); err != nil {
					t.Fatal(err)
				}
			}
			o, err := n.ownership(l)
			if err != nil {
				t.Fatal(err)
			}
			n.ChangeOwner = true
			if err := n.agree(l, o); err != nil {
				t.Fatal(err)
			}
			if changed, err := n.handOver(t.Context(), l, o, uid, uid); err != nil || !changed {
				t.Fatal(changed, err)
			}
			for _, dir := range []string{n.Root, outside + "/v/versions"} {
				if owners, err := fsutil.Owners(dir); err != nil || len(owners) != 1 || owners[uint32(uid)] == "" {
					t.Errorf("%s: %v, %v", dir, owners, err)
				}
			}
			owners, err := fsutil.Owners(outside + "/admin.toml")
			if _, ok := owners[0]; !ok || err != nil {
				t.Errorf("the administrator's file: %v, %v", owners, err)
			}
			if owner == lost {
				if owners, err = fsutil.Owners(outside + "/secret"); err != nil || owners[uint32(uid)] == "" {
					t.Errorf("credentials.json: %v, %v", owners, err)
				}
			}
			if o, err = n.ownership(l); err != nil || owner == lost && len(o.strangers()) > 0 {
				t.Errorf("afterwards: %+v, %v", o, err)
			}
		})
	}
}

// The old owner may have pointed a link to what it does not own. That is not given away.
func TestHandOverRefusesTargets(t *testing.T) {
	t.Parallel()
	uid := wantedID(t)
	for name, tt := range map[string]struct {
		owner int
		prep  func(outside string) error
		want  string
	}{
		"a directory of root":           {lost, func(d string) error { return nil }, "belongs to root (uid 0)"},
		"a bystander's":                 {lost, func(d string) error { return os.Chown(d+"/v", third, third) }, "belongs to uid 54323"},
		"the user's, and root's target": {uid, func(d string) error { return nil }, "belongs to root (uid 0)"},
		"in a directory of the owner": {lost, func(d string) error {
			give(t, d, lost)
			return nil
		}, "who could replace it"},
		"a bystander's file in it": {lost, func(d string) error {
			give(t, d+"/v", lost)
			return os.Chown(d+"/v/f", third, third)
		}, "v/f belongs to uid 54323"},
		"a dangling link": {lost, func(d string) error { return os.RemoveAll(d + "/v") }, "dangling link"},
	} {
		t.Run(name, func(t *testing.T) {
			n, l := keptRoot(t, tt.owner)
			outside := filepath.Join(filepath.Dir(n.Root), "outside")
			tree(t, outside, "v/f")
			if err := os.Symlink(outside+"/v", l.OutboxDir()); err != nil {
				t.Fatal(err)
			}
			if err := tt.prep(outside); err != nil {
				t.Fatal(err)
			}
			before, _ := fsutil.Owners(outside)
			n.ChangeOwner = true
			o, err := n.ownership(l)
			if err != nil {
				t.Fatal(err)
			}
			o.wrong = true
			if err = n.agree(l, o); err == nil {
				_, err = n.handOver(t.Context(), l, o, uid, uid)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			after, _ := fsutil.Owners(outside)
			if _, given := after[uint32(uid)]; given && len(before) > 0 {
				t.Errorf("given away: %v, before: %v", after, before)
			}
		})
	}
}

// A handover that was interrupted after it took a directory, or before, continues. Nothing
// shows that it took an empty directory, besides the link, which then belongs to root.
func TestHandOverContinues(t *testing.T) {
	t.Parallel()
	uid := wantedID(t)
	for name, tt := range map[string]struct {
		target, link int // their owners, when root has the install root again
		file         int // owner of a file in the target; -1: none
		refused      bool
	}{
		"before the target":         {lost, lost, lost, false},
		"before the target, a link": {lost, 0, lost, false},
		"the target":                {0, 0, lost, false},
		"an empty target":           {0, 0, -1, false},
		"half of the target":        {0, 0, uid, false},
		"after the target":          {uid, 0, uid, false},
		"by an earlier version":     {0, lost, lost, false},
		"a directory of root":       {0, lost, -1, true},
		"with a file of root":       {0, lost, 0, true},
	} {
		n, l := keptRoot(t, lost)
		outside := filepath.Join(filepath.Dir(n.Root), "outside")
		tree(t, outside, "v/")
		if tt.file >= 0 {
			tree(t, outside, "v/f")
			if err := os.Chown(outside+"/v/f", tt.file, tt.file); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(outside+"/v", l.OutboxDir()); err != nil {
			t.Fatal(err)
		}
		for path, owner := range map[string]int{outside + "/v": tt.target, l.OutboxDir(): tt.link, n.Root: 0} {
			if err := os.Lchown(path, owner, owner); err != nil {
				t.Fatal(err)
			}
		}
		n.ChangeOwner = true
		o, err := n.ownership(l)
		if err == nil {
			err = n.agree(l, o)
		}
		if err == nil {
			_, err = n.handOver(t.Context(), l, o, uid, uid)
		}
		if (err != nil) != tt.refused {
			t.Errorf("%s: %v", name, err)
		}
		if owners, _ := fsutil.Owners(outside + "/v"); !tt.refused && (len(owners) != 1 || owners[uint32(uid)] == "") {
			t.Errorf("%s: %v", name, owners)
		}
	}
}
