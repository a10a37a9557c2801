package stage

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// digests writes the record of a version's files: a line for each regular file, as
// sha256sum writes them ("sha256sum -c .release.sha256"). A star marks a program. What
// sha256sum cannot say is in comments, which it ignores:
//
//	#exec bin/helper              the program of the line before has the right to be executed
//	#link "lib/x.so" "x.so.1"     a symbolic link, and its target
//
// The version's marker has the digest of the whole record.
type digests struct {
	f    *fsutil.File
	w    *bufio.Writer
	all  hash.Hash // of the record
	sum  hash.Hash
	head []byte // the first bytes of the present file
}

// The comments of a record begin with these.
const (
	execComment = "#exec "
	linkComment = "#link "
)

// Write takes the content of the present file.
func (d *digests) Write(b []byte) (int, error) {
	if room := headSize - len(d.head); room > 0 {
		d.head = append(d.head, b[:min(room, len(b))]...)
	}
	return d.sum.Write(b)
}

const headSize = 4

// isProgram reports whether a file that begins with head is executed: an ELF file, or one
// that has the right to be and names an interpreter. In archives of other systems every
// file has that right, also data that the service rewrites.
func isProgram(head []byte, executable bool) bool {
	return bytes.HasPrefix(head, []byte("\x7fELF")) || executable && bytes.HasPrefix(head, []byte("#!"))
}

// newDigests creates the record in the directory dir, which is a partial version.
func newDigests(disk fsutil.Disk, dir string) (*digests, error) {
	f, err := disk.Create(filepath.Join(dir, state.DigestsFile), os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil { // whatever the umask
		f.Close()
		return nil, err
	}
	all := sha256.New()
	return &digests{f: f, w: bufio.NewWriterSize(io.MultiWriter(f, all), 64<<10), all: all, sum: sha256.New()}, nil
}

// fileRecord is what a record has of a file beside its name.
type fileRecord struct {
	sum                 [sha256.Size]byte
	program, executable bool
}

// add records the file of that name, whose content was written to d.
func (d *digests) add(name string, executable bool) error { return d.put(name, d.take(executable)) }

// take returns what is recorded of the file whose content was written to d.
func (d *digests) take(executable bool) fileRecord {
	r := fileRecord{program: isProgram(d.head, executable), executable: executable}
	d.sum.Sum(r.sum[:0])
	d.head = d.head[:0]
	d.sum.Reset()
	return r
}

func (d *digests) put(name string, r fileRecord) error {
	mark := " "
	if r.program {
		mark = "*"
	}
	_, err := fmt.Fprintf(d.w, "%x %s%s\n", r.sum, mark, name)
	if r.program && r.executable && err == nil {
		_, err = fmt.Fprintf(d.w, execComment+"%s\n", name)
	}
	return err
}

// link records a symbolic link.
func (d *digests) link(name, target string) error {
	_, err := fmt.Fprintf(d.w, linkComment+"%q %q\n", name, target)
	return err
}

// digest returns the SHA-256 of a record that is closed, for the marker.
func (d *digests) digest() string { return hex.EncodeToString(d.all.Sum(nil)) }

// close makes the record durable, if err is nil, and returns the first error.
func (d *digests) close(err error) error {
	if err == nil {
		err = d.w.Flush()
	}
	if err == nil {
		err = d.f.Sync()
	}
	return errors.Join(err, d.f.Close())
}
