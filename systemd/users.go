package systemd

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// UserName returns the name of a user, or its number if no user has that uid.
func UserName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if name, ok := NameOf(uid); ok {
		return name
	}
	return id
}

// NameOf returns the name of a user. ok is false if no user has that uid.
func NameOf(uid uint32) (name string, ok bool) {
	id := strconv.FormatUint(uint64(uid), 10)
	if who, err := user.LookupId(id); err == nil {
		return who.Username, true
	}
	fields := database("passwd", id)
	if len(fields) < 3 || fields[2] != id {
		return "", false
	}
	return fields[0], true
}

// UserID returns the uid of a value of User=: a name, a number, or "" for root. It
// reports false if there is no such user, which a number need not have.
func UserID(name string) (uint32, bool) {
	if name == "" {
		return 0, true
	}
	if uid, _, ok := LookupUser(name); ok {
		return uid, true
	}
	uid, err := strconv.ParseUint(name, 10, 32)
	return uint32(uid), err == nil
}

// LookupUser returns the uid and the group of a user. ok is false if there is no such
// user.
func LookupUser(name string) (uid, gid uint32, ok bool) {
	ids := make([]string, 2)
	if who, err := user.Lookup(name); err == nil {
		ids = []string{who.Uid, who.Gid}
	} else if fields := database("passwd", name); len(fields) > 3 && fields[0] == name {
		ids = fields[2:4]
	}
	u, err1 := strconv.ParseUint(ids[0], 10, 32)
	g, err2 := strconv.ParseUint(ids[1], 10, 32)
	return uint32(u), uint32(g), err1 == nil && err2 == nil
}

// Account is an entry of the user database.
type Account struct{ Name, Comment, Home, Shell string }

// LookupAccount returns the entry of a user. ok is false if there is no such user.
func LookupAccount(name string) (a Account, ok bool) {
	fields := database("passwd", name)
	if len(fields) < 7 || fields[0] != name {
		return a, false
	}
	return Account{name, fields[4], fields[5], fields[6]}, true
}

// GroupExists reports whether there is a group of that name or number.
func GroupExists(name string) bool {
	if _, err := user.LookupGroup(name); err == nil {
		return true
	}
	if _, err := user.LookupGroupId(name); err == nil {
		return true
	}
	return len(database("group", name)) > 2
}

// database returns an entry of the user database (passwd or group), in its fields, or nil.
// A program without cgo reads /etc/passwd and /etc/group itself, and does not see the
// users of other sources (nsswitch.conf): directories, /var/lib/extrausers, systemd.
func database(name, key string) []string {
	if strings.HasPrefix(key, "-") {
		return nil
	}
	out, err := output(context.Background(), "getent", name, key) // it runs for 5 s at most
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(out)), ":")
}

// DescribeUser returns the name of a user with its uid, for a text about owners.
func DescribeUser(uid uint32) string {
	if name, ok := NameOf(uid); ok {
		return fmt.Sprintf("%s (uid %d)", name, uid)
	}
	return fmt.Sprintf("uid %d, which no user has", uid)
}

// UserOf returns the uid of a unit that starts a program from the root of l, or with a file
// in it. ok is false for any other unit, for one of root, and for a user that does not
// exist.
func UserOf(ctx context.Context, unit string, l Layout) (uid uint32, ok bool) {
	if Booted() != nil {
		return 0, false
	}
	p, err := show(ctx, unit, "LoadState", "User", "ExecStart")
	if err != nil || p["LoadState"] != "loaded" {
		return 0, false
	}
	return userOf(p, l)
}

func userOf(p map[string]string, l Layout) (uid uint32, ok bool) {
	if !strings.Contains(p["ExecStart"], l.Root()+"/") && !strings.Contains(p["ExecStart"], resolve(l.Root())+"/") {
		return 0, false
	}
	uid, ok = UserID(p["User"])
	_, named := NameOf(uid)
	return uid, ok && named && uid != 0
}

// owner returns the uid of the owner of the install root, if it is known.
func (u unit) owner() (uint32, bool) {
	st, err := os.Stat(u.Layout.Root())
	if err != nil {
		return 0, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return sys.Uid, true
}

// agentPrefix stands before the properties of the agent's unit, among those of the service
// that it is attached to.
const agentPrefix = "agent unit "

// ownerName returns the user that the agent should run as, or "USER" if that is unknown.
func (u unit) ownerName() string {
	name := u.p["User"]
	if u.kind == attached { // whose user is another one
		name = u.p[agentPrefix+"User"]
	}
	if uid, ok := UserID(name); ok && uid != 0 {
		return name
	}
	uid, ok := u.owner()
	if name, named := NameOf(uid); ok && named && uid != 0 {
		return name
	}
	return "USER"
}

// checkUser compares User= with the user database and with the owner of the install root,
// and the groups of the unit with the database.
func (u unit) checkUser() []Problem { return append(u.checkOwner(), u.checkGroups()...) }

func (u unit) checkOwner() []Problem {
	name := u.p["User"]
	owner, known := u.owner()
	if u.p["DynamicUser"] == "yes" {
		return []Problem{{Rollback: true, Remedy: u.setRemedy("Service", "DynamicUser", "no"), Cause: u.Unit + " has DynamicUser=yes: its user changes with each start, and cannot own " + u.Layout.Root()}}
	}
	uid, ok := UserID(name)
	if _, named := NameOf(uid); name != "" && (!ok || !named) {
		return []Problem{{Rollback: true, Cause: u.noUser(owner, known), Remedy: u.addUser()}}
	}
	if !known || uid == owner {
		return nil
	}
	p := Problem{Rollback: true,
		Cause:  fmt.Sprintf("%s runs as %s, but %s belongs to %s: it cannot record or roll back anything", u.Unit, DescribeUser(uid), u.Layout.Root(), DescribeUser(owner)),
		Remedy: fmt.Sprintf("run: chown -R %s %s && systemctl restart %s", u.newOwner(), u.real, u.Unit)}
	if uid == 0 { // the root is another user's: the unit lost its User=
		p.Cause = fmt.Sprintf("%s runs as root (User= is empty or root), but %s belongs to %s", u.Unit, u.Layout.Root(), DescribeUser(owner))
		p.Remedy = u.setRemedy("Service", "User", UserName(owner))
	}
	return []Problem{p}
}

// noUser describes that the user of the unit does not exist, with the owner of the root.
func (u unit) noUser(owner uint32, known bool) string {
	text := fmt.Sprintf("%s has User=%s, and there is no such user: it cannot start", u.Unit, u.p["User"])
	if known {
		text += fmt.Sprintf("; %s belongs to %s", u.Layout.Root(), DescribeUser(owner))
	}
	return text
}

// addUser returns the command that creates the user of the unit and gives it the root.
func (u unit) addUser() string {
	name, more := u.p["User"], ""
	if _, err := strconv.ParseUint(name, 10, 32); err == nil {
		name, more = strings.TrimSuffix(u.Unit, ".service"), " --uid "+name
	}
	if GroupExists(name) { // useradd would refuse to create it
		more += " --gid " + name
	}
	return fmt.Sprintf("run: useradd --system --no-create-home --shell /usr/sbin/nologin%s %s && chown -R %s %s && systemctl restart %s", more, name, u.newOwner(), u.real, u.Unit)
}

// newOwner returns the user of the unit as an argument of chown. In attached mode the group
// stays: it lets the service, which runs as another user, reach its program.
func (u unit) newOwner() string {
	if u.kind == beside {
		return u.p["User"]
	}
	return u.p["User"] + ":"
}

// checkGroups finds groups that do not exist. systemd does not start a unit with one.
func (u unit) checkGroups() (out []Problem) {
	for _, key := range []string{"Group", "SupplementaryGroups"} {
		for group := range strings.FieldsSeq(u.p[key]) {
			if GroupExists(group) {
				continue
			}
			out = append(out, Problem{Rollback: true, Remedy: fmt.Sprintf("run: groupadd --system %s && systemctl restart %s; or %s", group, u.Unit, u.rewriteRemedy(key)),
				Cause: fmt.Sprintf("%s has %s=%s, and there is no such group: it cannot start", u.Unit, key, group)})
		}
	}
	return out
}
