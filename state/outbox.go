package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
)

// Limits of the outbox.
const (
	MaxEntry   = 64 << 10 // bytes of one entry
	MaxEntries = 1000     // at the limit the oldest makes room
)

// Outbox keeps what the manager has not yet seen, oldest first: one file an
// entry, outbox/<number>-<id>.json. Put and Remove need no lock between
// processes beyond that of Layout.Do, which every writer holds; the agent
// alone removes.
type Outbox struct {
	dir  string
	disk fsutil.Disk
	l    Layout
}

// Outbox returns the outbox of l.
func (l Layout) Outbox() Outbox { return Outbox{l.outboxDir(), l.disk, l} }

// Put makes e durable. An entry whose id is there already is not put again.
func (o Outbox) Put(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if err := o.l.mkdir(o.dir); err != nil {
		return err
	}
	names, err := o.names()
	if err != nil {
		return err
	}
	var last uint64
	for _, n := range names {
		if n.id == e.ID {
			return nil
		}
		last = n.number
	}
	if len(names) >= MaxEntries {
		if err := o.disk.Remove(filepath.Join(o.dir, names[0].file)); err != nil {
			return err
		}
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(b) > MaxEntry {
		return fmt.Errorf("outbox: entry %s has %d bytes, more than %d", e.ID, len(b), MaxEntry)
	}
	return o.disk.WriteFile(filepath.Join(o.dir, fmt.Sprintf("%016d-%s.json", last+1, e.ID)), b, 0o644)
}

// Amend changes an entry that is there; one that is gone is no error.
func (o Outbox) Amend(id string, change func(*Entry)) error {
	names, err := o.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.id != id {
			continue
		}
		path := filepath.Join(o.dir, n.file)
		e, err := readEntry(path)
		if err != nil {
			return err
		}
		change(&e)
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if len(b) > MaxEntry {
			return fmt.Errorf("outbox: entry %s has %d bytes, more than %d", id, len(b), MaxEntry)
		}
		return o.disk.WriteFile(path, b, 0o644)
	}
	return nil
}

// List returns the entries, oldest first. Files that hold none are moved out
// of the way as .corrupt and reported in bad.
func (o Outbox) List() (entries []Entry, bad []error, err error) {
	names, err := o.names()
	if err != nil {
		return nil, nil, err
	}
	for _, n := range names {
		path := filepath.Join(o.dir, n.file)
		e, err := readEntry(path)
		if err == nil && e.ID != n.id {
			err = fmt.Errorf("holds the entry %.128q", e.ID)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("outbox: %s: %w", n.file, err))
			o.disk.Rename(path, path+".corrupt") // it is out of the way either way
			continue
		}
		entries = append(entries, e)
	}
	return entries, bad, nil
}

func readEntry(path string) (Entry, error) {
	var e Entry
	b, err := fsutil.ReadFile(path, MaxEntry)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, err
	}
	return e, e.check()
}

// Remove forgets the entry id, which the manager has; repeating it is no error.
func (o Outbox) Remove(id string) error {
	names, err := o.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.id == id {
			return o.disk.Remove(filepath.Join(o.dir, n.file))
		}
	}
	return nil
}

type entryName struct {
	file   string
	number uint64
	id     string
}

func (o Outbox) names() ([]entryName, error) {
	files, err := os.ReadDir(o.dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // Put makes it
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []entryName
	for _, f := range files {
		stem, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || strings.HasPrefix(stem, ".") {
			continue
		}
		num, id, ok := strings.Cut(stem, "-")
		n, err := strconv.ParseUint(num, 10, 64)
		if !ok || err != nil {
			continue
		}
		names = append(names, entryName{f.Name(), n, id})
	}
	slices.SortFunc(names, func(a, b entryName) int {
		if a.number != b.number {
			if a.number < b.number {
				return -1
			}
			return 1
		}
		return strings.Compare(a.id, b.id)
	})
	return names, nil
}
