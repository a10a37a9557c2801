package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/bench/host"
	"github.com/bilbycast/edge-agent/bench/measure"
	"github.com/bilbycast/edge-agent/bench/payload"
	"github.com/bilbycast/edge-agent/bench/peers"
	"golang.org/x/sys/unix"
)

const module = "github.com/bilbycast/edge-agent"

// quickPayload is about the size of the payload of --quick, in bytes.
const quickPayload = 32_000_000

// bench is one run of the benchmark. All its files are in dir.
type bench struct {
	o        options
	progress io.Writer
	dir      string
	root     bool // it may mount, and nobody else sees it
	host     *host.Host
	release  *payload.Release
	big      *payload.Release // with the padded payload, or nil
	files    int
	unpacked int64             // bytes of the payload
	trusts   map[string]string // what our agent trusts, by the name of a published release
	versions []string
	missing  []string // Debian packages
}

func start(ctx context.Context, o options, progress io.Writer) (_ *bench, err error) {
	dir, err := os.MkdirTemp(o.dir, "edge-agent-bench")
	if err != nil {
		return nil, err
	}
	b := &bench{o: o, progress: progress, dir: dir, root: os.Geteuid() == 0 && os.Getenv(namespaceEnv) != "", trusts: map[string]string{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	for _, d := range []string{"bin", "www", "scripts", "peers", "target"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if b.host, err = host.Start(dir); err != nil {
		return nil, err
	}
	err = errors.Join(os.WriteFile(b.ca(), b.host.CA, 0o644), peers.Scripts(filepath.Join(dir, "scripts")), b.build(ctx))
	if err != nil {
		return nil, err
	}
	b.say("make the payload")
	tree := filepath.Join(dir, "tree")
	switch {
	case o.payload != "":
		err = payload.Copy(tree, o.payload)
	case o.quick:
		err = payload.GoTools(ctx, tree, quickPayload)
	default:
		err = payload.GoTools(ctx, tree, 0)
	}
	if err != nil {
		return nil, err
	}
	if b.files, b.unpacked, err = payload.Size(tree); err != nil {
		return nil, err
	}
	if b.release, err = payload.Pack(ctx, b.tool("release-manifest"), tree, filepath.Join(dir, "release")); err != nil {
		return nil, err
	}
	if err := b.release.NeedZst(); err != nil {
		return nil, err
	}
	if o.sizeMB > 0 {
		b.say("make the payload of %d MB", o.sizeMB)
		big := filepath.Join(dir, "big")
		if err := errors.Join(os.Mkdir(big, 0o755), payload.Copy(big, filepath.Join(dir, "scripts")), payload.Pad(big, o.sizeMB*1_000_000)); err != nil {
			return nil, err
		}
		if b.big, err = payload.Pack(ctx, b.tool("release-manifest"), big, filepath.Join(dir, "big-release")); err != nil {
			return nil, err
		}
	}
	if b.root {
		b.trustHost()
	}
	return b, nil
}

func (b *bench) close() error {
	if b.host != nil {
		b.host.Close()
	}
	return os.RemoveAll(b.dir)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "bench: "+format+"\n", args...)
}

func (b *bench) tool(name string) string { return filepath.Join(b.dir, "bin", name) }

func (b *bench) ca() string { return filepath.Join(b.dir, "ca.pem") }

// target is the directory in which every row installs.
func (b *bench) target() string { return filepath.Join(b.dir, "target", "root") }

// build builds the programs of the benchmark. Our agent is built as for a device
// (docs/performance.md), with the trust of the simulation.
func (b *bench) build(ctx context.Context) error {
	b.say("build the programs")
	device := []string{"-tags", "sim,grpcnotrace,nethttpomithttp2", "-gcflags=all=-l", "-gcflags=runtime/...=", "-gcflags=internal/...=", "-gcflags=crypto/internal/...=", "-gcflags=github.com/klauspost/...=", "-ldflags", "-s -w -funcalign=8"}
	for name, flags := range map[string][]string{"bench/node": device, "bench/limits": nil, "bench/runner": nil, "cmd/release-manifest": nil} {
		args := append([]string{"build", "-trimpath"}, flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, "-o", b.tool(path.Base(name)), module+"/"+name)...)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// trustHost makes the system's CAs include that of the host, in this mount namespace only:
// some peers can be given no other. Those fail, and tell so, if it does not work.
func (b *bench) trustHost() {
	const system = "/etc/ssl/certs/ca-certificates.crt"
	have, err := os.ReadFile(system)
	if err != nil {
		return
	}
	all := filepath.Join(b.dir, "all-cas.pem")
	if os.WriteFile(all, append(have, b.host.CA...), 0o644) == nil {
		unix.Mount(all, system, "", unix.MS_BIND, "")
	}
}

// serve makes the host serve a file, and returns its URL.
func (b *bench) serve(file, as string) (string, error) {
	dir := filepath.Join(b.dir, "www", as)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name := filepath.Base(file)
	if err := os.Link(file, filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return b.host.URL + "/" + as + "/" + name, nil
}

// chosen returns the rows that were asked for.
func (b *bench) chosen(rows []*row) []*row {
	return slices.DeleteFunc(rows, func(r *row) bool {
		return !b.o.wants(r.name) && (r.base == "" || !b.wants(r.base))
	})
}

func (b *bench) run(ctx context.Context, c measure.Command) (measure.Usage, error) {
	return measure.Run(ctx, b.tool("runner"), c)
}

// measure runs every row at every rate: each once, then each again.
func (b *bench) measure(ctx context.Context, rows []*row) error {
	for _, rate := range b.o.rates {
		runs := b.o.runs
		if rate > 0 {
			runs = b.o.limitedRuns
		}
		for n := range runs {
			for _, r := range rows {
				if r.why != "" || r.unlimited && rate != 0 || r.once && n > 0 {
					continue
				}
				b.say("%s, run %d of %d: %s", rateName(rate), n+1, runs, r.name)
				s, err := b.once(ctx, r, rate)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil { // a row that failed once is not measured at all
					r.why, r.runs = err.Error(), nil
					continue
				}
				r.record(rate, s)
			}
		}
	}
	return nil
}

// maxRun is what one run may take.
const maxRun = 30 * time.Minute

// once measures one run of a row, and checks what it installed.
func (b *bench) once(ctx context.Context, r *row, rate int64) (s sample, err error) {
	b.host.Link.SetRate(0)
	if err := b.reset(ctx, r); err != nil {
		return s, err
	}
	defer func() {
		if r.detach != nil {
			r.detach(context.WithoutCancel(ctx))
		}
	}()
	b.host.Begin()
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	var first measure.Usage
	if r.resumed {
		if first, err = b.half(ctx, r); err != nil {
			return s, err
		}
	}
	b.host.Link.SetRate(rate * 1_000_000)
	before, kernel := cpuTime(), measure.ReadKernel()
	if s.Usage, err = b.run(ctx, r.command); err != nil {
		return s, err
	}
	s.hostCPU, s.kernelCPU = cpuTime()-before, measure.ReadKernel().Since(kernel)
	s.Written += first.Written
	s.sent, s.served = b.host.Sent(), b.host.Served(r.file)
	if r.file != "" && s.served < r.size {
		return s, fmt.Errorf("the agent did not fetch %s", r.file)
	}
	return s, b.installed(ctx, r)
}

// cpuTime is the CPU time of this process so far, without its children.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reset makes the target as it is before an upgrade, and waits until the disk is idle.
func (b *bench) reset(ctx context.Context, r *row) error {
	if err := os.RemoveAll(b.target()); err != nil {
		return err
	}
	if err := os.MkdirAll(b.target(), 0o755); err != nil {
		return err
	}
	if r.prepare != nil {
		if err := r.prepare(ctx); err != nil {
			return err
		}
	}
	unix.Sync()
	return nil
}

// half begins the upgrade of a row, and kills it when the host has sent half of its file.
func (b *bench) half(ctx context.Context, r *row) (measure.Usage, error) {
	held := b.host.Hold(r.file, r.size/2)
	kill := make(chan struct{})
	c := r.command
	c.Kill = kill
	ended := make(chan struct{})
	go func() {
		defer close(kill)
		select {
		case <-held:
			// What the host has sent still has to reach the disk.
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ended:
			}
		case <-ended:
		}
	}()
	u, err := b.run(ctx, c)
	close(ended)
	<-kill
	b.host.Release()
	if err == nil {
		return u, errors.New("the upgrade ended before it was killed")
	}
	select {
	case <-held:
	default:
		return u, fmt.Errorf("the upgrade ended before half was sent: %w", err)
	}
	if !errors.Is(err, measure.ErrExit) || u.Exit != -1 {
		return u, err
	}
	return u, nil
}

// installed checks that a row installed its tree.
func (b *bench) installed(ctx context.Context, r *row) error {
	if r.tree == "" {
		return nil
	}
	if r.detach != nil {
		r.detach(ctx)
	}
	dir, err := r.active(ctx)
	if err != nil {
		return err
	}
	if r.inactive != nil {
		defer r.inactive(context.WithoutCancel(ctx))
	}
	if err := payload.Equal(r.tree, dir); err != nil {
		return fmt.Errorf("what was installed is not the payload: %w", err)
	}
	return nil
}
