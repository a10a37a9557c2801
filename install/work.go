package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
	"github.com/rs/zerolog"
)

// Job is the task of a process that first becomes the owner of Root. The process reads it
// as JSON from its standard input.
type Job struct {
	Root    string `json:"root"`    // without links
	Config  string `json:"config"`  // new text of config.toml; "": keep the file
	Keep    string `json:"keep"`    // name for a copy of the old config.toml; "": none
	Install string `json:"install"` // release to install, as agent.Examine accepts it; "": none
	Purge   bool   `json:"purge"`   // remove the content of the root
}

// child runs a job in a child process.
func (n *Node) child(ctx context.Context, job Job) error {
	b, err := json.Marshal(job)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, n.Child[0], n.Child[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(b), n.Out, n.Err
	err = cmd.Run()
	if errors.As(err, new(*exec.ExitError)) {
		return ErrReported
	}
	return err
}

// Work does the Job that it reads from in. It opens the release as the present user, and
// then becomes the owner of the root for good.
func Work(ctx context.Context, in io.Reader, log zerolog.Logger, progress func(phase string, done, total int64)) error {
	var job Job
	b, err := io.ReadAll(io.LimitReader(in, 2*agent.MaxConfig))
	if err == nil {
		err = json.Unmarshal(b, &job)
	}
	if err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	l, err := state.At(job.Root)
	if err != nil {
		return err
	}
	var source stage.Source
	if _, err := os.Stat(job.Install); job.Install != "" && err == nil {
		if source, err = OpenSource(job.Install); err != nil {
			return err
		}
		defer source.Close()
	}
	if err := fsutil.BecomeOwner(job.Root); err != nil {
		return err
	}
	if job.Purge {
		return empty(l)
	}
	if job.Config != "" {
		if err := replaceConfig(l, job.Config, job.Keep); err != nil {
			return err
		}
	}
	if job.Install == "" {
		return nil
	}
	c, err := agent.Load(l.ConfigFile())
	if err != nil {
		return err
	}
	c.Log = log
	_, err = agent.InstallSource(ctx, c, job.Install, source, progress)
	return err
}

// replaceConfig replaces config.toml by text, which must be valid. It copies the old file
// to the name keep, unless that is "".
func replaceConfig(l state.Layout, text, keep string) error {
	disk, path := l.Disk(), l.ConfigFile()
	fresh := filepath.Join(l.Root(), fsutil.TempPrefix+filepath.Base(path))
	if err := disk.WriteFile(fresh, []byte(text), 0o600); err != nil {
		return err
	}
	c, err := agent.Load(fresh)
	if err == nil {
		_, err = agent.Check(c)
	}
	if err != nil {
		// The caller does not know the temporary name.
		err = errors.New(strings.ReplaceAll(err.Error(), fresh, path))
		return errors.Join(fmt.Errorf("the new %s is not valid, and the old one stays: %w", path, err), disk.Remove(fresh))
	}
	if keep != "" {
		old, err := fsutil.ReadFile(path, agent.MaxConfig)
		if err != nil {
			return errors.Join(err, disk.Remove(fresh))
		}
		if err := disk.WriteFile(filepath.Join(l.Root(), keep), old, 0o600); err != nil {
			return errors.Join(err, disk.Remove(fresh))
		}
	}
	return disk.Rename(fresh, path)
}

// OpenSource opens the release in a directory or a tar file. It opens all files of a
// directory at once, so that a process can read them after it gave up root.
func OpenSource(path string) (stage.Source, error) {
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return stage.OpenSource(path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	if len(names) > maxFiles { // a stick with many other files
		names = slices.DeleteFunc(names, func(name string) bool {
			return !slices.ContainsFunc([]string{".json", ".bundle", ".gz", ".tgz"}, func(end string) bool { return strings.HasSuffix(name, end) })
		})
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("%s has more than %d files that may belong to a release: give a directory with one release", path, maxFiles)
	}
	held := heldFiles{}
	for _, name := range names {
		// This follows no link that leaves the directory, and does not block on a FIFO.
		f, err := root.OpenFile(name, os.O_RDONLY|nonblock, 0)
		if err != nil {
			continue // if the release needs the file, its absence is reported by name
		}
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			f.Close()
			continue
		}
		held[name] = f
	}
	return held, nil
}

// maxFiles limits the open files of a directory.
const maxFiles = 200

// heldFiles are the open files of a directory, by name.
type heldFiles map[string]*os.File

func (h heldFiles) Open(name string) (io.ReadCloser, int64, error) {
	f, ok := h[name]
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return io.NopCloser(io.NewSectionReader(f, 0, st.Size())), st.Size(), nil
}

func (h heldFiles) Close() error {
	var errs []error
	for _, f := range h {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
