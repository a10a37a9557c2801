package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/upgrade"
)

// Job is the task of a process that first becomes the owner of Root. The process reads it
// as JSON from its standard input. Unless it empties the root, it first tries what the root
// can do (state.Layout.Try): a Job with only Root does nothing else.
type Job struct {
	Root    string `json:"root"`    // without links
	Config  string `json:"config"`  // new text of config.toml; "": keep the file
	Keep    string `json:"keep"`    // name for a copy of the old config.toml; "": none
	Install string `json:"install"` // release to install, as upgrade.Pipeline.Open accepts it; "": none
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
func Work(ctx context.Context, in io.Reader, log *slog.Logger, progress func(phase string, done, total int64)) error {
	var job Job
	b, err := io.ReadAll(io.LimitReader(in, 2*config.MaxFile))
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
		if source, err = stage.OpenSource(job.Install); err != nil {
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
	if err := tryRoot(ctx, l); err != nil {
		return err
	}
	if job.Config != "" {
		// With the lock, since an agent that starts removes temporary files.
		if err := l.Locked(ctx, func() error { return replaceConfig(l, job.Config, job.Keep) }); err != nil {
			return err
		}
	}
	if job.Install == "" {
		return nil
	}
	return installFirst(ctx, l, job.Install, source, log, progress)
}

// installFirst puts a release into a root that has no version. With source nil,
// what says where the release is.
func installFirst(ctx context.Context, l state.Layout, what string, source stage.Source, log *slog.Logger, progress func(phase string, done, total int64)) error {
	c, err := config.Read(l.ConfigFile())
	if err != nil {
		return err
	}
	p, err := upgrade.New(upgrade.Config{Node: &c, Progress: progress, Log: log})
	if err != nil {
		return err
	}
	var version release.Version
	if source == nil {
		if source, version, err = p.Open(what); err != nil {
			return err
		}
		defer source.Close()
	}
	_, err = p.Run(ctx, source, upgrade.Request{Version: version, End: upgrade.Install})
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
	if _, err := config.Read(fresh); err != nil {
		// The caller does not know the temporary name.
		err = errors.New(strings.ReplaceAll(err.Error(), fresh, path))
		return errors.Join(fmt.Errorf("the new %s is not valid, and the old one stays: %w", path, err), disk.Remove(fresh))
	}
	if keep != "" {
		old, err := fsutil.ReadFile(path, config.MaxFile)
		if err != nil {
			return errors.Join(err, disk.Remove(fresh))
		}
		if err := disk.WriteFile(filepath.Join(l.Root(), keep), old, 0o600); err != nil {
			return errors.Join(err, disk.Remove(fresh))
		}
	}
	return disk.Rename(fresh, path)
}
