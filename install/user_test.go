package install

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/systemd"
)

// systemd takes a number for a uid, and old versions refuse names that useradd accepts.
// Such a user is refused before anything is created.
func TestUserNames(t *testing.T) {
	t.Parallel()
	who, err := user.Lookup(wanted)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"4444": "takes a number for a uid", "0": "or root, who has that uid", who.Uid: "or " + wanted + ", who has that uid", "99999999999": "takes a number for a uid",
		"4edge": "there is no such user", "no.such.user": "there is no such user", "no@such": "there is no such user", strings.Repeat("n", 32): "1 to 31 letters",
		wanted: "", "no-such-user": "", "_no_such": "", "No-Such": "",
	} {
		n := Node{Name: "no-such-service", DeviceType: "edge", Root: t.TempDir() + "/root", User: name}
		if err := n.Install(t.Context(), "1.0.0"); want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if err := n.checkUserName(); want == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(n.Root); err == nil {
			t.Errorf("%s: it created the root", name)
		}
	}
}

// A user that only has the name of the service is not taken without a question.
func TestAgreeUser(t *testing.T) {
	t.Parallel()
	uid := uint32(wantedID(t))
	for name, tt := range map[string]struct {
		change func(*Node, *ownership)
		asks   bool
	}{
		"a user of the system":           {func(*Node, *ownership) {}, true},
		"and an empty root of root":      {func(_ *Node, o *ownership) { o.exists, o.files = true, map[uint32]string{0: "/x"} }, true},
		"named":                          {func(n *Node, _ *ownership) { n.userNamed = true }, false},
		"a new user":                     {func(n *Node, o *ownership) { n.User, o.known = "no-such-user", false }, false},
		"the owner of the root":          {func(_ *Node, o *ownership) { o.exists, o.files = true, map[uint32]string{uid: "/x"} }, false},
		"the root of another, was asked": {func(_ *Node, o *ownership) { o.exists, o.files = true, map[uint32]string{lost: "/x"} }, false},
	} {
		n := &Node{Name: wanted, User: wanted}
		o := ownership{user: uid, known: true}
		tt.change(n, &o)
		err := n.agreeUser(o)
		if (err != nil) != tt.asks || tt.asks && !strings.Contains(err.Error(), "give --user daemon; otherwise") {
			t.Errorf("%s: %v", name, err)
		}
		for answer, refused := range map[bool]bool{true: false, false: tt.asks} {
			n.Confirm = func(question string) bool {
				if !tt.asks || !strings.Contains(question, "daemon (uid "+strconv.Itoa(int(uid))+") exists already") {
					t.Errorf("%s: it asked %q", name, question)
				}
				return answer
			}
			if err := n.agreeUser(o); (err != nil) != refused {
				t.Errorf("%s: answered %v: %v", name, answer, err)
			}
		}
	}
	home := t.TempDir()
	for a, ours := range map[systemd.Account]bool{
		{Name: "no-such", Home: "/home/no-such", Shell: noLogin}:                       true, // of an earlier version
		{Name: "no-such", Home: home, Shell: "/bin/sh", Comment: userComment}:          true,
		{Name: "no-such", Home: "/home/no-such", Shell: "/bin/bash"}:                   false,
		{Name: "no-such", Home: "/nonexistent", Shell: noLogin}:                        false,
		{Name: "no-such", Home: "/home/no-such", Shell: noLogin, Comment: "a program"}: false,
		{Name: "backup", Home: "/var/backups", Shell: noLogin, Comment: "backup"}:      false,
	} {
		if likeOurs(a) != ours {
			t.Errorf("%+v: %v", a, !ours)
		}
	}
}
