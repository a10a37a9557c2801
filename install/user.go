package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/systemd"
)

// newUserName matches a name that useradd and systemd accept in every version, and take
// for a name. systemd before 246 refuses a unit with a dot in User=, for instance.
var newUserName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,30}$`) })

// checkUserName refuses a user that systemd would not take for the user of that name. It
// takes a number for a uid, even if a user has that name.
func (n *Node) checkUserName() error {
	name := n.User
	uid, _, exists := systemd.LookupUser(name)
	if number, err := strconv.ParseUint(name, 10, 64); err == nil {
		if exists && uint64(uid) == number {
			return nil
		}
		remedy := "choose a name that begins with a letter"
		if other, named := systemd.NameOf(uint32(number)); named && number <= 1<<32-1 {
			remedy += fmt.Sprintf(", or %s, who has that uid", other)
		}
		return usage("--user %s: systemd takes a number for a uid, and no user of that name has it: %s", name, remedy)
	}
	if !exists && !n.unitHasUser() && !newUserName().MatchString(name) {
		return usage("--user %s: there is no such user, and a new one has a name of 1 to 31 letters, digits, _ and -, beginning with a letter or _: choose another --user, or create the user first", name)
	}
	return nil
}

// agreeUser returns an error unless the service may run as the user. A user that exists
// only happens to have the name of the service, and may be that of another program, unless
// an operator named it, the root or the unit of the service has it, or edge-agent made
// it. Where agree asks about the owner of the root, that is the same question.
func (n *Node) agreeUser(o ownership) error {
	if n.userNamed || !o.known || o.files[o.user] != "" || len(o.strangers()) > 0 {
		return nil
	}
	a, ok := systemd.LookupAccount(n.User)
	if !ok || n.unitHasUser() || likeOurs(a) {
		return nil
	}
	facts := fmt.Sprintf("%s exists already, with the home directory %s, and may be the user of another program or a person", systemd.DescribeUser(o.user), a.Home)
	if n.Confirm != nil && n.Confirm(facts+".\nRun the service as "+n.User+"?") {
		return nil
	}
	return errors.New(facts + fmt.Sprintf(". Nothing was changed. If the service is to run as %s, give --user %[1]s; otherwise give --user with a name that no user has", n.User))
}

// unitHasUser reports whether edge-agent wrote a unit of the service for that user.
func (n *Node) unitHasUser() bool {
	text, err := fsutil.ReadFile(n.unitPath(), maxUnit)
	return err == nil && n.wrote(text) && slices.Contains(strings.Split(string(text), "\n"), "User="+n.User)
}

// userComment is the comment of a user that makeUser made.
const userComment = "service of edge-agent"

// noLogin is the shell of a user that makeUser made.
const noLogin = "/usr/sbin/nologin"

// likeOurs reports whether makeUser made the user. Earlier versions set no comment. The
// users that they made have no home directory at the place where useradd looks for one.
func likeOurs(a systemd.Account) bool {
	if a.Comment == userComment {
		return true
	}
	_, err := os.Lstat(a.Home)
	return a.Comment == "" && a.Shell == noLogin && a.Home == "/home/"+a.Name && os.IsNotExist(err)
}

// makeUser returns the ids of the user. It creates the user if there is none.
func (n *Node) makeUser(ctx context.Context) (uid, gid int, err error) {
	u, g, ok := systemd.LookupUser(n.User)
	if !ok {
		group := []string{"--user-group"}
		if systemd.GroupExists(n.User) { // from an earlier user of that name, whom somebody deleted
			group = []string{"--gid", n.User}
		}
		args := append([]string{"useradd", "--system", "--no-create-home", "--comment", userComment, "--shell", noLogin}, group...)
		if err := command(ctx, append(args, n.User)...); err != nil {
			return 0, 0, fmt.Errorf("%w (create the user %s yourself, and run this again)", err, n.User)
		}
		if u, g, ok = systemd.LookupUser(n.User); !ok {
			return 0, 0, fmt.Errorf("useradd created the user %s, but the user database does not have it: see getent passwd %[1]s", n.User)
		}
		n.madeUser = true
		n.report("created the user %s", n.User)
	}
	if u == 0 {
		return 0, 0, fmt.Errorf("the user %s has the uid of root; the service must not run as root", n.User)
	}
	return int(u), int(g), nil
}
