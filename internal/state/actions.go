package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
)

// Bounds of the records of an author's commands.
const (
	MaxActionRecords = 64        // beyond it the oldest record is dropped
	maxActionRecord  = 144 << 10 // bytes of one record: a result of at most 64 KiB, and texts
)

// ActionRecord is what is known of a command of the author's, besides its parameters, which
// may have secrets and are not kept.
type ActionRecord struct {
	ID     string    `json:"id"`
	Action string    `json:"action"`
	Began  time.Time `json:"began"`
	// Done is whether it has ended. A record without it, of a process that has ended, is of a
	// command that was interrupted.
	Done    bool            `json:"done,omitempty"`
	Success bool            `json:"success,omitempty"`
	Code    string          `json:"code,omitempty"`
	Error   string          `json:"error,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
}

// ErrActionDamaged means that there is a record of a command, and that it cannot be read: the
// command began.
var ErrActionDamaged = errors.New("the record of the command is damaged")

// Actions are the records of the author's commands that began: one file for each,
// actions/<number>-<digest of the id>.json. Only the agent that holds the root uses them, one
// goroutine at a time, so they need no lock.
type Actions struct {
	dir string
	l   Layout
}

// Actions returns the records of l.
func (l Layout) Actions() Actions { return Actions{l.path(actionsName), l} }

// Put makes r durable, in place of the record with its id. A new record beyond
// MaxActionRecords takes the place of the oldest.
func (a Actions) Put(r ActionRecord) error {
	b, err := encodeJSON(r, "")
	if err != nil {
		return err
	}
	if len(b) > maxActionRecord {
		return fmt.Errorf("the record of command %s has %d bytes, more than %d", r.ID, len(b), maxActionRecord)
	}
	if err := a.l.mkdir(a.dir, 0o700); err != nil {
		return err
	}
	names, err := a.names()
	if err != nil {
		return err
	}
	digest, last := actionDigest(r.ID), uint64(0)
	for _, n := range names {
		if n.id == digest {
			return a.l.disk.WriteFile(filepath.Join(a.dir, n.file), b, 0o600)
		}
		last = n.number
	}
	if err := a.l.disk.WriteFile(filepath.Join(a.dir, fmt.Sprintf("%016d-%s"+entrySuffix, last+1, digest)), b, 0o600); err != nil {
		return err
	}
	var old []string
	for _, n := range names[:max(0, len(names)+1-MaxActionRecords)] {
		old = append(old, filepath.Join(a.dir, n.file))
	}
	if len(old) == 0 {
		return nil
	}
	return a.l.disk.RemoveFiles(a.dir, old)
}

// Get returns the record of a command, and whether there is one. With ErrActionDamaged there
// is one that cannot be read.
func (a Actions) Get(id string) (ActionRecord, bool, error) {
	names, err := a.names()
	if err != nil {
		return ActionRecord{}, false, err
	}
	for _, n := range names {
		if n.id != actionDigest(id) {
			continue
		}
		r, err := a.read(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return r, true, err
	}
	return ActionRecord{}, false, nil
}

// Interrupted returns the records of commands that have not ended, oldest first. What cannot
// be read is left out: see Get.
func (a Actions) Interrupted() ([]ActionRecord, error) {
	names, err := a.names()
	if err != nil {
		return nil, err
	}
	var list []ActionRecord
	for _, n := range names {
		if r, err := a.read(n); err == nil && !r.Done {
			list = append(list, r)
		}
	}
	return list, nil
}

func (a Actions) read(n entryName) (ActionRecord, error) {
	var r ActionRecord
	b, err := fsutil.ReadFile(filepath.Join(a.dir, n.file), maxActionRecord)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil || actionDigest(r.ID) != n.id {
		return ActionRecord{}, errors.Join(ErrActionDamaged, err)
	}
	return r, nil
}

// names returns the files of the records, oldest first.
func (a Actions) names() ([]entryName, error) { return entryNames(a.dir) }

// actionDigest returns what the name of a record has in place of the id, which may have
// characters that no file name has.
func actionDigest(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}
