package state

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

// start identifies one start of the service.
type start struct {
	BootID       string `json:"boot_id"`
	InvocationID string `json:"invocation_id,omitzero"` // from systemd; empty elsewhere
	// Counted means that the watchdog's own unit counted the next start of the service,
	// which has no invocation id yet.
	Counted bool `json:"counted,omitzero"`
	// RolledBack means that it rolled back instead.
	RolledBack bool `json:"rolled_back,omitzero"`
}

// thisStart returns the start that this process belongs to.
func thisStart() start {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // "" compares as well
	return start{BootID: strings.TrimSpace(string(b)), InvocationID: os.Getenv("INVOCATION_ID")}
}

// BootID returns the id of this boot of the machine, or "" if it is not known.
func BootID() string { return thisStart().BootID }

// startSize is the size of the file, in bytes. The file is overwritten in place, which
// needs no free space on most file systems.
const startSize = 256

// RecordStart records that a watchdog ran before this start. The file is not synced, as
// no other boot reads it.
func (l Layout) RecordStart() error { return l.recordStart(thisStart()) }

// RecordStartOf is RecordStart for a start of another unit, which has that invocation id.
func (l Layout) RecordStartOf(invocation string) error {
	return l.recordStart(start{BootID: thisStart().BootID, InvocationID: invocation})
}

func (l Layout) recordStart(s start) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return l.writeStart(append(b, bytes.Repeat([]byte{' '}, max(0, startSize-len(b)))...))
}

// RecordCounted records that the next start of the service is counted, or was rolled back,
// for the watchdog in the service's own unit. It replaces the record of RecordStart.
func (l Layout) RecordCounted(rolledBack bool) error {
	return l.recordStart(start{BootID: thisStart().BootID, Counted: true, RolledBack: rolledBack})
}

// ClearCounted takes RecordCounted back: the start was not counted.
func (l Layout) ClearCounted() error { return l.recordStart(start{}) }

// StartCounted reports whether the next start of the service is counted, and no watchdog
// has run in the service's own unit since; and whether it was rolled back. boot is the id of
// this boot, as that unit sees it; "": as this process does.
func (l Layout) StartCounted(boot string) (counted, rolledBack bool) {
	var s start
	b, err := fsutil.ReadFile(l.startFile(), startSize)
	if err != nil || json.Unmarshal(b, &s) != nil || !s.Counted || s.BootID != cmp.Or(boot, thisStart().BootID) {
		return false, false
	}
	return true, s.RolledBack
}

// StartRecorded reports whether a watchdog has already run before this start. It
// returns false in a process that systemd did not execute itself, which may have
// inherited the id of another start. (systemd sets SYSTEMD_EXEC_PID from 248 on.)
func (l Layout) StartRecorded() bool {
	var s start
	b, err := fsutil.ReadFile(l.startFile(), startSize)
	return err == nil && json.Unmarshal(b, &s) == nil && ofThisStart(s.InvocationID)
}

// CountedNow reports whether a watchdog counted the present start of the trial in s, also if it was
// killed right after that. Like StartRecorded it returns false where systemd did not execute this
// process itself.
func (l Layout) CountedNow(s State) bool {
	r, known := l.ReadStarts(s)
	return known && s.BootAttempts > 0 && ofThisStart(r.Invocation)
}

// ofThisStart reports whether invocation is the id of the start in which systemd executed this
// process itself.
func ofThisStart(invocation string) bool {
	now := thisStart().InvocationID
	return now != "" && now == invocation && os.Getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid())
}

// TakeStart reports whether a watchdog ran before this start, and removes the record.
// So it is true once, in the process that started after the watchdog.
func (l Layout) TakeStart() bool {
	var s start
	b, err := fsutil.ReadFile(l.startFile(), startSize)
	recorded := err == nil && json.Unmarshal(b, &s) == nil && s == thisStart()
	// Also without a record, so that the file exists when the disk is full later.
	if err := l.writeStart(bytes.Repeat([]byte{' '}, startSize)); err != nil {
		return recorded // a record that stays is of this boot
	}
	return recorded
}

// StartOf reports whether a watchdog ran before a start of another unit, which has that
// invocation id in systemd. known is false if no watchdog has recorded a start, as
// those of earlier versions do not. The boot id is not compared: a sandbox may show
// another one, and invocation ids are unique.
func (l Layout) StartOf(invocation string) (ran, known bool) {
	var s start
	b, err := fsutil.ReadFile(l.startFile(), startSize)
	if err != nil || json.Unmarshal(b, &s) != nil {
		return false, false
	}
	return s.InvocationID == invocation, true
}

// writeStart overwrites the file in place. What cannot be written because it is no file,
// or another user's, is set aside first.
//
//	open(O_CREAT), write
func (l Layout) writeStart(b []byte) error {
	path := l.startFile()
	err := l.overwrite(path, b)
	for _, e := range []error{unix.EISDIR, unix.ELOOP, unix.ENXIO, unix.EINVAL, unix.EACCES} {
		if errors.Is(err, e) && l.aside(path) == nil {
			return l.overwrite(path, b)
		}
	}
	return err
}

func (l Layout) overwrite(path string, b []byte) error {
	return l.disk.Do(fsutil.Op{Kind: fsutil.OpWrite, Path: path, Data: b}, func() error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			return unix.EINVAL
		}
		_, err = f.WriteAt(b, 0)
		return err
	})
}

// CountBlind counts a start whose watchdog cannot read state.json, in a file of its own, and
// returns how many there were in a row in this boot. It returns 0 if it cannot count.
func (l Layout) CountBlind() int {
	var b struct {
		BootID string `json:"boot_id"`
		Starts int    `json:"starts"`
	}
	boot := thisStart().BootID
	if text, err := fsutil.ReadFile(l.path(blindName), startSize); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0
	} else if err == nil && (json.Unmarshal(text, &b) != nil || b.BootID != boot) {
		b.Starts = 0
	}
	b.BootID = boot
	b.Starts++
	text, err := json.Marshal(b)
	if err != nil || l.disk.WriteFile(l.path(blindName), text, 0o600) != nil {
		return 0
	}
	return b.Starts
}

// ClearBlind ends the row of CountBlind: state.json was read.
func (l Layout) ClearBlind() {
	if _, err := os.Lstat(l.path(blindName)); err == nil {
		l.disk.Discard(l.path(blindName))
	}
}
