package state

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

// start names one start of the service.
type start struct {
	BootID       string `json:"boot_id"`
	InvocationID string `json:"invocation_id,omitzero"` // of systemd; empty elsewhere
}

func thisStart() start {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // "" is as good for a comparison
	return start{strings.TrimSpace(string(b)), os.Getenv("INVOCATION_ID")}
}

// startSize is the length of the file: it is overwritten in place, which needs
// no space on most file systems once it is there.
const startSize = 256

// RecordStart records that a watchdog ran before this start. It is not synced:
// no other boot reads it.
func (l Layout) RecordStart() error {
	b, err := json.Marshal(thisStart())
	if err != nil {
		return err
	}
	return l.writeStart(append(b, bytes.Repeat([]byte{' '}, max(0, startSize-len(b)))...))
}

// StartRecorded reports whether a watchdog ran before this start already. Only
// a process that systemd itself executed knows which start this is: any other
// may have inherited the id of one (systemd sets SYSTEMD_EXEC_PID from 248 on).
func (l Layout) StartRecorded() bool {
	now := thisStart()
	if now.InvocationID == "" || os.Getenv("SYSTEMD_EXEC_PID") != strconv.Itoa(os.Getpid()) {
		return false
	}
	var s start
	b, err := fsutil.ReadFile(l.startFile(), startSize)
	return err == nil && json.Unmarshal(b, &s) == nil && s == now
}

// TakeStart reports whether a watchdog ran before this start, and forgets it: it
// is true once, in the process that the watchdog ran before.
func (l Layout) TakeStart() bool {
	var s start
	b, err := fsutil.ReadFile(l.startFile(), startSize)
	recorded := err == nil && json.Unmarshal(b, &s) == nil && s == thisStart()
	// Also where nothing was recorded: so that the file is there on a disk that
	// fills up later.
	if err := l.writeStart(bytes.Repeat([]byte{' '}, startSize)); err != nil {
		return recorded // a record that cannot be forgotten is of this boot
	}
	return recorded
}

// StartOf reports whether a watchdog ran before the start of another unit that
// systemd calls invocation. known is false where no watchdog has ever recorded a
// start, as those of earlier versions do not. The boot is not compared: a sandbox
// may show another boot id than the watchdog saw, and an invocation is unique.
func (l Layout) StartOf(invocation string) (ran, known bool) {
	var s start
	b, err := fsutil.ReadFile(l.startFile(), startSize)
	if err != nil || json.Unmarshal(b, &s) != nil {
		return false, false
	}
	return s.InvocationID == invocation, true
}

// writeStart overwrites the file in place, as one change.
//
//	open(O_CREAT), write
func (l Layout) writeStart(b []byte) error {
	path := l.startFile()
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
