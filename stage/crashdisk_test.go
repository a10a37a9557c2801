package stage

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

// fault is what happens at one change of the file system.
type fault int

const (
	none      fault = iota
	fails           // it is not made, and returns an error
	failsDone       // it is made, but returns an error
	noSpace         // from it on nothing can be made: the disk is full
	readOnly        // from it on nothing can be changed
	noSync          // from it on every fsync fails
)

// crashDisk is a fsutil.Seam that records every change, and fails the one at index at.
// It makes no fsync: the model below computes what one would have saved.
type crashDisk struct {
	mu    sync.Mutex // a download and its files change at the same time
	at    int        // the change that the fault happens at
	fault fault
	n     int // changes so far
	done  []change
}

type change struct {
	fsutil.Op
	mode fs.FileMode // of what a create or mkdir made
}

func (d *crashDisk) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpRemoveAll { // many system calls: any of them may be the last
		return d.removeAll(op.Path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.n
	d.n++
	if op.Kind == fsutil.OpRename && immovable(op.Path) || op.Kind == fsutil.OpExchange && (immovable(op.Path) || immovable(op.To)) {
		return unix.EXDEV
	}
	sync := op.Kind == fsutil.OpSync || op.Kind == fsutil.OpSyncDir
	err := error(unix.EIO)
	switch {
	case n == d.at && d.fault == fails:
		return err
	case n >= d.at && d.fault == noSpace && takesSpace(op.Kind):
		return unix.ENOSPC
	case n >= d.at && d.fault == readOnly:
		return unix.EROFS
	case n >= d.at && d.fault == noSync && sync:
		return err
	}
	if !sync {
		if e := make(); e != nil {
			return e
		}
	}
	op.Data = bytes.Clone(op.Data)
	c := change{Op: op}
	if op.Kind == fsutil.OpCreate || op.Kind == fsutil.OpMkdir {
		if st, e := os.Lstat(op.Path); e == nil {
			c.mode = st.Mode().Perm()
		}
	}
	d.done = append(d.done, c)
	if n == d.at && d.fault == failsDone {
		return err
	}
	return nil
}

// lowerFile marks a directory that is of a lower layer of an overlay.
const lowerFile = "of-the-lower-layer"

func immovable(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, lowerFile))
	return err == nil
}

func takesSpace(k fsutil.OpKind) bool {
	switch k {
	case fsutil.OpRename, fsutil.OpExchange, fsutil.OpRemove, fsutil.OpTruncate, fsutil.OpSync, fsutil.OpSyncDir:
		return false
	}
	return true
}

func (d *crashDisk) removeAll(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	if st.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := d.removeAll(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return d.Change(fsutil.Op{Kind: fsutil.OpRemove, Path: path}, func() error { return os.Remove(path) })
}

// node is a file, link or directory of the model.
type node struct {
	mode    fs.FileMode // with ModeDir or ModeSymlink
	data    []byte      // or the link's target
	durable []byte      // what the last fsync saved of data
	names   map[string]*node
}

// readTree reads what is under dir; all of it is durable.
func readTree(dir string) (*node, error) {
	st, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	n := &node{mode: st.Mode()}
	switch {
	case st.IsDir():
		n.names = map[string]*node{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if n.names[e.Name()], err = readTree(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	case st.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(dir)
		if err != nil {
			return nil, err
		}
		n.data = []byte(to)
	default:
		if n.data, err = os.ReadFile(dir); err != nil {
			return nil, err
		}
		n.durable = n.data
	}
	return n, nil
}

func (n *node) clone() *node {
	c := *n
	if n.names != nil {
		c.names = map[string]*node{}
		for k, v := range n.names {
			c.names[k] = v.clone()
		}
	}
	return &c
}

// write makes the model's tree at dir. lost says how much of what was never
// synced is gone: 0 none, 1 half, 2 all.
func (n *node) write(dir string, lost int) error {
	switch {
	case n.names != nil:
		if err := os.Mkdir(dir, n.mode.Perm()|0o700); err != nil {
			return err
		}
		for k, v := range n.names {
			if err := v.write(filepath.Join(dir, k), lost); err != nil {
				return err
			}
		}
		return nil
	case n.mode&fs.ModeSymlink != 0:
		return os.Symlink(string(n.data), dir)
	}
	return os.WriteFile(dir, n.content(lost), n.mode.Perm())
}

func (n *node) content(lost int) []byte {
	if bytes.Equal(n.data, n.durable) || lost == 0 {
		return n.data
	}
	if lost == 2 || len(n.data) < len(n.durable) {
		return n.durable
	}
	return n.data[:(len(n.data)+len(n.durable))/2]
}

// String is equal for trees that do not differ once written.
func (n *node) describe(b *strings.Builder, lost int) {
	if n.names == nil {
		fmt.Fprintf(b, "%v %x\n", n.mode, sha256.Sum256(n.content(lost)))
		return
	}
	b.WriteString("{\n")
	for _, k := range slices.Sorted(maps.Keys(n.names)) {
		if k == ".lock" || k == "watchdog.json" { // neither says anything of what may run
			continue
		}
		name := k
		if strings.HasPrefix(k, fsutil.TempPrefix) {
			name = fsutil.TempPrefix // the rest is random
		}
		fmt.Fprintf(b, "%s: ", name)
		n.names[k].describe(b, lost)
	}
	b.WriteString("}\n")
}

// torn reports whether the model has anything that was never synced.
func (n *node) torn() bool {
	if n.names == nil {
		return n.mode.IsRegular() && !bytes.Equal(n.data, n.durable)
	}
	for _, v := range n.names {
		if v.torn() {
			return true
		}
	}
	return false
}

// replay returns the tree after the changes done, of which lost(i) did not
// reach the directory. Files keep their bytes wherever their name is.
func replay(base *node, root string, done []change, lost func(i int) bool) *node {
	top := base.clone()
	open := map[string]*node{} // by the path that it was last seen under
	find := func(path string) (dir *node, name string) {
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return nil, ""
		}
		parts := strings.Split(rel, "/")
		dir = top
		for _, p := range parts[:len(parts)-1] {
			if dir = dir.names[p]; dir == nil || dir.names == nil {
				return nil, ""
			}
		}
		return dir, parts[len(parts)-1]
	}
	get := func(path string) *node {
		if dir, name := find(path); dir != nil {
			return dir.names[name]
		}
		return nil
	}
	put := func(path string, n *node) {
		if dir, name := find(path); dir != nil && n != nil {
			dir.names[name] = n
		}
	}
	drop := func(path string) {
		if dir, name := find(path); dir != nil {
			delete(dir.names, name)
		}
	}
	for i, c := range done {
		switch c.Kind { // bytes reach an open file whatever became of its name
		case fsutil.OpWrite:
			if n := open[c.Path]; n != nil {
				n.data = append(n.data[:len(n.data):len(n.data)], c.Data...)
			}
			continue
		case fsutil.OpTruncate:
			if n := open[c.Path]; n != nil {
				n.data = n.data[:c.Size]
			}
			continue
		case fsutil.OpSync:
			if n := open[c.Path]; n != nil {
				n.durable = n.data
			}
			continue
		case fsutil.OpCreate:
			n := get(c.Path)
			if n == nil {
				n = &node{mode: c.mode}
			}
			open[c.Path] = n
			if !lost(i) {
				put(c.Path, n)
			}
			continue
		}
		if lost(i) {
			continue
		}
		switch c.Kind {
		case fsutil.OpMkdir:
			put(c.Path, &node{mode: c.mode | fs.ModeDir, names: map[string]*node{}})
		case fsutil.OpSymlink:
			put(c.Path, &node{mode: fs.ModeSymlink, data: []byte(c.To)})
		case fsutil.OpLink:
			put(c.Path, get(c.To))
		case fsutil.OpRemove:
			drop(c.Path)
		case fsutil.OpRename:
			if n := get(c.Path); n != nil {
				drop(c.Path)
				put(c.To, n)
			}
		case fsutil.OpExchange:
			a, b := get(c.Path), get(c.To)
			if a != nil && b != nil {
				put(c.Path, b)
				put(c.To, a)
			}
		}
	}
	return top
}

// names reports whether an op changes a directory, and which.
func (c change) dirs() []string {
	switch c.Kind {
	case fsutil.OpCreate, fsutil.OpMkdir, fsutil.OpSymlink, fsutil.OpLink, fsutil.OpRemove:
		return []string{filepath.Dir(c.Path)}
	case fsutil.OpRename, fsutil.OpExchange:
		return slices.Compact([]string{filepath.Dir(c.Path), filepath.Dir(c.To)})
	}
	return nil
}

// losses returns every set of changes that a power cut after done may undo:
// in the order of the journal, each suffix of what no fsync of a directory
// has saved; and for file systems that keep no order between directories,
// all of that for each directory alone.
func losses(done []change) []func(i int) bool {
	var pending []int // not saved yet
	for i, c := range done {
		if c.Kind == fsutil.OpSyncDir {
			pending = slices.DeleteFunc(pending, func(j int) bool { return slices.Contains(done[j].dirs(), c.Path) })
		} else if c.dirs() != nil {
			pending = append(pending, i)
		}
	}
	sets := []func(int) bool{func(int) bool { return false }}
	saved := -1 // the last change that is surely on disk: the journal has all before it
	for i, c := range done {
		if c.dirs() != nil && !slices.Contains(pending, i) {
			saved = i
		}
	}
	byDir := map[string][]int{}
	for k, i := range pending {
		if i > saved {
			rest := pending[k:]
			sets = append(sets, func(j int) bool { return slices.Contains(rest, j) })
		}
		for _, d := range done[i].dirs() {
			byDir[d] = append(byDir[d], i)
		}
	}
	for _, gone := range byDir {
		sets = append(sets, func(j int) bool { return slices.Contains(gone, j) })
	}
	return sets
}
