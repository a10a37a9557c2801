package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
)

// entrySuffix ends the name of an entry's file.
const entrySuffix = ".json"

// Limits of the outbox.
const (
	MaxEntry   = 64 << 10 // bytes of one entry
	MaxEntries = 1000     // beyond it the oldest entry is dropped
)

// Outbox holds the reports that the manager has not acknowledged, oldest first: one
// file for each entry, outbox/<number>-<id>.json. Put and Amend need the root's lock.
// Remove needs none, as only the agent removes entries.
type Outbox struct {
	dir  string
	disk fsutil.Disk
	l    Layout
}

// Outbox returns the outbox of l.
func (l Layout) Outbox() Outbox { return Outbox{l.OutboxDir(), l.disk, l} }

// Put makes e durable. If there is an entry with its id, Put does nothing. The caller
// holds the root's lock.
func (o Outbox) Put(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if err := o.l.mkdir(o.dir, 0o700); err != nil {
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
	return o.write(filepath.Join(o.dir, fmt.Sprintf("%016d-%s"+entrySuffix, last+1, e.ID)), e)
}

// write writes e with its texts cut to their limits.
func (o Outbox) write(path string, e Entry) error {
	b, err := encodeJSON(e.bounded(), "")
	if err != nil {
		return err
	}
	if len(b) > MaxEntry { // a defect: bounded prevents it
		return fmt.Errorf("outbox: entry %s has %d bytes, more than %d", e.ID, len(b), MaxEntry)
	}
	return o.disk.WriteFile(path, b, 0o600)
}

// Amend changes the entry with that id. A missing entry is no error. The caller holds
// the root's lock.
func (o Outbox) Amend(id string, change func(*Entry)) error {
	names, err := o.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.id != id {
			continue
		}
		e, err := o.read(n)
		if err != nil {
			return err
		}
		change(&e)
		return o.write(filepath.Join(o.dir, n.file), e)
	}
	return nil
}

// BadEntry is a damaged file of the outbox. As an error it says what is wrong.
type BadEntry struct {
	name entryName
	err  error
}

func (b BadEntry) Error() string { return fmt.Sprintf("outbox: %s: %v", b.name.file, b.err) }
func (b BadEntry) Unwrap() error { return b.err }

// List returns the entries, oldest first, and the damaged files. It takes no lock and
// changes nothing. An entry that cannot be read now is neither: the error names it, and
// the others are returned all the same.
func (o Outbox) List() (entries []Entry, bad []BadEntry, err error) {
	return o.ListExcept(func(string) bool { return false })
}

// ListExcept is List without the entries for which skip reports true. It does not read
// their files.
func (o Outbox) ListExcept(skip func(id string) bool) (entries []Entry, bad []BadEntry, err error) {
	names, err := o.names()
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, n := range names {
		if skip(n.id) {
			continue
		}
		e, err := o.read(n)
		switch {
		case errors.Is(err, fs.ErrNotExist): // delivered meanwhile
		case errors.Is(err, errEntryUnreadable):
			errs = append(errs, err)
		case err != nil:
			bad = append(bad, BadEntry{n, err})
		default:
			entries = append(entries, e)
		}
	}
	return entries, bad, errors.Join(errs...)
}

// errEntryUnreadable means that a file of the outbox cannot be read now. It may be sound.
var errEntryUnreadable = errors.New("an entry of the outbox cannot be read now")

// SetAside renames a file that List found damaged, to its name and ".corrupt". It
// takes the root's lock, and does nothing if the file is gone or readable by now.
func (o Outbox) SetAside(ctx context.Context, b BadEntry) error {
	return o.l.Locked(ctx, func() error {
		if _, err := o.read(b.name); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errEntryUnreadable) {
			return nil
		}
		path := filepath.Join(o.dir, b.name.file)
		return o.disk.Rename(path, path+corruptSuffix)
	})
}

// read reads the entry of a file, whose name must have its id.
func (o Outbox) read(n entryName) (Entry, error) {
	var e Entry
	b, err := fsutil.ReadFile(filepath.Join(o.dir, n.file), MaxEntry)
	if notReadable(b, err) {
		err = fmt.Errorf("%w: %w", errEntryUnreadable, err)
	}
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, err
	}
	if err := e.check(); err != nil {
		return e, err
	}
	if e.ID != n.id {
		return e, fmt.Errorf("holds the entry %.128q", e.ID)
	}
	return e, nil
}

// Remove removes the entries with these ids, which the manager has acknowledged. A
// missing entry is no error. It reads and syncs the directory once.
func (o Outbox) Remove(ids ...string) error {
	names, err := o.names()
	if err != nil {
		return err
	}
	files := make(map[string]string, len(names)) // by id
	for _, n := range names {
		files[n.id] = n.file
	}
	var paths []string
	for _, id := range ids {
		if file, ok := files[id]; ok {
			delete(files, id)
			paths = append(paths, filepath.Join(o.dir, file))
		}
	}
	return o.disk.RemoveFiles(o.dir, paths)
}

type entryName struct {
	file   string
	number uint64
	id     string
}

func (o Outbox) names() ([]entryName, error) { return entryNames(o.dir) }

// entryNames returns the files NUMBER-ID.json of a directory, by their numbers; none if there is
// no directory, which a writer creates. Leftovers of a write that a crash interrupted are none of
// them; Sweep removes those.
func entryNames(dir string) ([]entryName, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []entryName
	for _, f := range files {
		stem, ok := strings.CutSuffix(f.Name(), entrySuffix)
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
	// Not slices.SortFunc: each of its instances adds some 20 KB to the program.
	sort.Slice(names, func(i, j int) bool {
		if names[i].number != names[j].number {
			return names[i].number < names[j].number
		}
		return names[i].id < names[j].id
	})
	return names, nil
}
