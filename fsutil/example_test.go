package fsutil_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
)

// A file is replaced as a whole: after a power cut it has the old text or the new one.
func ExampleDisk_WriteFile() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	lock, err := fsutil.LockFile(context.Background(), filepath.Join(dir, ".lock"), time.Second)
	if err != nil {
		fmt.Println(err) // errors.Is(err, fsutil.ErrLocked): another process has it
		return
	}
	defer lock.Unlock()
	var disk fsutil.Disk
	path := filepath.Join(dir, "state.json")
	for _, text := range []string{`{"starts":1}`, `{"starts":2}`} {
		if err := disk.WriteFile(path, []byte(text), 0o600); err != nil {
			fmt.Println(err)
			return
		}
	}
	text, err := fsutil.ReadFile(path, 1<<10)
	fmt.Println(string(text), err)
	// Output: {"starts":2} <nil>
}
