package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// ownership is who owns the files of an install root that was there before: kept from
// another system, or left by an earlier run.
type ownership struct {
	exists bool
	top    uint32            // owner of the root itself
	files  map[uint32]string // each owner of a file in the root, with one of the files
	user   uint32            // uid of the service's user
	known  bool              // whether that user exists
	// wrong is whether the user does not own, or cannot read, a file that the agent
	// needs.
	wrong bool
}

// ownership reads who owns the root of n. It changes nothing.
func (n *Node) ownership(l state.Layout) (o ownership, err error) {
	o.user, _, o.known = systemd.LookupUser(n.User)
	if o.known && o.user == 0 {
		return o, fmt.Errorf("the user %s has the uid of root; the service must not run as root", n.User)
	}
	st, err := os.Lstat(n.real)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	o.exists = true
	o.top, _, _ = ownerIDs(st)
	if o.files, err = fsutil.Owners(n.real); err != nil {
		return o, err
	}
	o.wrong = !o.known
	if o.known {
		_, _, o.wrong, err = l.Misowned(o.user)
		if st, e := os.Stat(l.ConfigFile()); e == nil && !may(o.user, st, 4) {
			o.wrong = true
		}
	}
	return o, err
}

// strangers returns the owners of files that are neither root nor the service's user.
func (o ownership) strangers() []uint32 {
	var out []uint32
	for _, uid := range slices.Sorted(maps.Keys(o.files)) {
		if uid != 0 && !(o.known && uid == o.user) {
			out = append(out, uid)
		}
	}
	return out
}

// agree returns an error unless the root may be handed over to the service's user. What
// belongs to root needs no permission, since root runs this. It changes nothing.
func (n *Node) agree(l state.Layout, o ownership) error {
	strangers := o.strangers()
	if !o.exists || !o.wrong {
		return nil
	}
	if c, err := configOf(n.Root); err == nil && c.Service.Unit != "" {
		return fmt.Errorf("%s is attached to %s; see docs/attach.md", l.ConfigFile(), c.Service.Unit)
	}
	targets, err := n.targets(l, o)
	if err != nil || len(strangers) == 0 {
		return err
	}
	at, err := state.At(n.real)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(n.real)
	if err != nil {
		return err
	}
	facts := n.facts(o)
	if !isRoot(at, entries) {
		return fmt.Errorf("%s. It is no install root: give the service another --root", facts)
	}
	if dir, by := dirOf(n.real, strangers); dir != "" {
		return fmt.Errorf("%s. %s belongs to %s as well, who could replace the install root: change the owner of that directory first", facts, dir, systemd.DescribeUser(by))
	}
	if n.ChangeOwner {
		return nil
	}
	question := n.does(targets)
	if n.Confirm != nil && n.Confirm(facts+".\n"+strings.ToUpper(question[:1])+question[1:]+"?") {
		return nil
	}
	text := fmt.Sprintf("%s. Nothing was changed. With --change-owner, this command will %s", facts, question)
	for _, uid := range strangers {
		if name, named := systemd.NameOf(uid); named {
			text += fmt.Sprintf(". If the service is to run as %s, give --user %[1]s instead", name)
		}
	}
	return errors.New(text)
}

// facts describes to whom the root belongs, and to whom it should.
func (n *Node) facts(o ownership) string {
	var b strings.Builder
	strangers := o.strangers()
	if slices.Contains(strangers, o.top) {
		fmt.Fprintf(&b, "%s belongs to %s", n.Root, systemd.DescribeUser(o.top))
		strangers = slices.DeleteFunc(strangers, func(uid uint32) bool { return uid == o.top })
	}
	for _, uid := range strangers {
		if b.Len() > 0 {
			b.WriteString(", and ")
		}
		fmt.Fprintf(&b, "%s belongs to %s", o.files[uid], systemd.DescribeUser(uid))
	}
	if slices.ContainsFunc(o.strangers(), func(uid uint32) bool { _, named := systemd.NameOf(uid); return named }) {
		b.WriteString(", which may be the user of another program")
	}
	if o.known {
		fmt.Fprintf(&b, "; the service is to run as %s", systemd.DescribeUser(o.user))
	} else {
		fmt.Fprintf(&b, "; the service is to run as %s, and there is no such user", n.User)
	}
	return b.String()
}

// does describes what handOver will do.
func (n *Node) does(targets []target) string {
	create := ""
	if _, _, known := systemd.LookupUser(n.User); !known {
		create = fmt.Sprintf("create the user %s, ", n.User)
	}
	what := []string{n.real}
	for _, t := range targets {
		what = append(what, t.real)
	}
	if _, err := os.Lstat(n.unitPath()); err == nil {
		create += fmt.Sprintf("stop %s, ", n.service())
	}
	return fmt.Sprintf("%sgive %s with everything in it to %s, and start the service", create, strings.Join(what, " and "), n.User)
}

// target is a directory or a file outside the root that a link in the root points to, and
// that the service's user must own.
type target struct {
	link, real string
	owner      uint32
	dir        bool
}

// targets returns what links in the root point to. It refuses what the owner of the root
// may have pointed the links to: directories of the system, and those of anybody else.
func (n *Node) targets(l state.Layout, o ownership) (all []target, err error) {
	strangers := o.strangers()
	for _, link := range append(l.Dirs(), l.Files()...) {
		st, err := os.Lstat(link)
		if err != nil || st.Mode().Type() != fs.ModeSymlink {
			continue
		}
		t := target{link: link, dir: slices.Contains(l.Dirs(), link)}
		if t.real, err = filepath.EvalSymlinks(link); err != nil {
			if !t.dir {
				continue
			}
			return nil, fmt.Errorf("%s is a dangling link: create the directory that it points to, or remove the link", link)
		}
		if st, err = os.Lstat(t.real); err != nil {
			return nil, err
		}
		t.owner, _, _ = ownerIDs(st)
		// While root owns the top of the install root, nobody else makes a link in it: root
		// made this one, or an interrupted handover accepted it.
		taken := t.owner == 0 && o.top == 0 && (len(strangers) == 0 || ofRoot(link) || t.dir && o.leftBehind(t.real))
		stranger := slices.Contains(strangers, t.owner)
		switch rel, err := filepath.Rel("/", t.real); {
		case !t.dir && !stranger: // an administrator's file
			continue
		case err != nil || systemDir(rel):
			return nil, fmt.Errorf("%s points to %s, a directory of the system: point it to a directory of the service", link, t.real)
		case !stranger && !(o.known && t.owner == o.user) && !taken:
			return nil, fmt.Errorf("%s points to %s, which belongs to %s: change the owner of that directory to %s, or remove the link", link, t.real, systemd.DescribeUser(t.owner), n.User)
		}
		if dir, by := dirOf(t.real, strangers); dir != "" {
			return nil, fmt.Errorf("%s points to %s, and %s belongs to %s, who could replace it: change the owner of %s first", link, t.real, dir, systemd.DescribeUser(by), dir)
		}
		all = append(all, t)
	}
	return all, nil
}

// ofRoot reports whether path, which may be a link, belongs to root, and has no other name.
func ofRoot(path string) bool {
	st, err := os.Lstat(path)
	if err != nil || !ownedByRoot(st) {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 1
}

// leftBehind reports whether dir looks as an interrupted handover leaves a directory of
// the old owner: root has its directories, which nobody else may change, and the user or
// strangers have every file, and at least one.
func (o ownership) leftBehind(dir string) bool {
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		uid, _, _ := ownerIDs(st)
		switch {
		case slices.Contains(o.strangers(), uid) || o.known && uid == o.user:
			if !e.IsDir() {
				files++
			}
		case uid != 0 || !e.IsDir() || st.Mode().Perm()&0o022 != 0:
			return fs.ErrPermission
		}
		return nil
	})
	return err == nil && files > 0
}

// dirOf returns the lowest directory above path that belongs to one of these users.
func dirOf(path string, users []uint32) (dir string, by uint32) {
	for up := filepath.Dir(path); ; up = filepath.Dir(up) {
		if st, err := os.Lstat(up); err == nil {
			if by, _, ok := ownerIDs(st); ok && slices.Contains(users, by) {
				return up, by
			}
		}
		if up == filepath.Dir(up) {
			return "", 0
		}
	}
}

// handOver gives the root, and what links in it point to, to the service's user, and
// reports whether it had to. The caller has the permission from agree. After a crash
// the root belongs to root, and the next Install continues.
func (n *Node) handOver(ctx context.Context, l state.Layout, o ownership, uid, gid int) (bool, error) {
	if !o.exists || !o.wrong {
		return false, nil
	}
	if err := n.stop(ctx); err != nil {
		return false, err
	}
	o.user, o.known = uint32(uid), true
	from := []int{uid}
	for owner := range o.files {
		from = append(from, int(owner))
	}
	root, err := fsutil.Take(n.real, int(o.top), from...)
	if err != nil {
		return false, err
	}
	defer root.Close()
	// Only now can nobody change the links any more.
	targets, err := n.targets(l, o)
	if err != nil {
		return false, err
	}
	// As long as root owns the install root, links of root are the accepted ones: targets
	// knows them after an interruption.
	for _, t := range targets {
		if err := fsutil.TakeLink(t.link); err != nil {
			return false, err
		}
	}
	for _, t := range targets {
		if err := t.give(uid, gid, o.strangers()); err != nil {
			return false, err
		}
	}
	if err := root.Give(uid, gid); err != nil {
		return false, err
	}
	delete(o.files, uint32(uid))
	for _, owner := range slices.Sorted(maps.Keys(o.files)) {
		if owner != 0 || o.top == uint32(uid) {
			n.report("gave %s to %s; it belonged to %s", o.files[owner], n.User, systemd.DescribeUser(owner))
		}
	}
	return true, nil
}

// give changes the owner of the target, and of what is below it. Everything must belong
// to root, to the user or to one of the old owners.
func (t target) give(uid, gid int, old []uint32) error {
	if !t.dir {
		return fsutil.GiveFile(t.real, int(t.owner), uid, gid)
	}
	from := []int{0, uid}
	for _, owner := range old {
		from = append(from, int(owner))
	}
	tree, err := fsutil.Take(t.real, int(t.owner), from...)
	if err != nil {
		return err
	}
	defer tree.Close()
	return tree.Give(uid, gid)
}

// stop stops the service before its files change their owner, if it may be running.
func (n *Node) stop(ctx context.Context) error {
	if _, err := os.Lstat(n.unitPath()); err != nil || systemd.Booted() != nil {
		return nil
	}
	s, err := systemd.QueryState(ctx, n.service())
	if err != nil || s.Load != "loaded" || s.Active == "inactive" || s.Active == "failed" {
		return err
	}
	if err := command(ctx, "systemctl", "stop", "--", n.service()); err != nil {
		return err
	}
	n.stopped = true
	return nil
}

// keepSettings keeps what an operator chose of the present unit: its arguments, writable paths
// and devices, and its variables, unless n has some of its own. The remedies of Doctor do not
// name them, since they may hold a password.
func (n *Node) keepSettings() {
	text, err := fsutil.ReadFile(n.unitPath(), maxUnit)
	if err != nil || !n.wrote(text) {
		return
	}
	var notes []string
	n.own, notes = n.own.KeepOwn(string(text))
	for _, note := range notes {
		n.report("%s: %s", n.service(), note)
	}
	if len(n.Environment) > 0 {
		return
	}
	var odd []string
	n.Environment, odd = environmentOf(text)
	for _, v := range odd {
		n.report("left Environment=%s out of the unit: set it in a drop-in of %s", v, n.service())
	}
}
