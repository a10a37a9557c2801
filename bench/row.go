package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/bench/measure"
	"github.com/bilbycast/edge-agent/bench/payload"
	"github.com/bilbycast/edge-agent/bench/peers"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// Groups of rows, as charts and tables show them.
const (
	groupOurs   = "ours"
	groupPeer   = "peer"
	groupLegacy = "existing agent"
	groupLimit  = "limit"
	groupMemory = "memory"
)

// row is one way to install the payload, or a part of it.
type row struct {
	name, group, form string
	why               string // it cannot be measured; "": it can
	tree              string // what it installs; "": nothing, as a part alone
	unlimited         bool   // measured without a limit only
	once              bool   // one run is enough, for its memory

	prepare  func(ctx context.Context) error // the target as it is before the upgrade
	command  measure.Command
	detach   func(ctx context.Context)
	active   func(ctx context.Context) (string, error) // the directory that is installed
	inactive func(ctx context.Context)
	// Of our agent: the file that it must fetch.
	file    string // its name's end
	size    int64  // its bytes
	base    string // the row beside which this one measures the memory with --size; "": none
	resumed bool   // the upgrade is killed half way, and what is measured is the rest
	again   int64  // bytes that a resumed download may fetch again
	// rewrites says that a resumed upgrade also writes again what was unpacked: the file system
	// does not say whether its disk has it.
	rewrites bool
	bounds   bool // bytes that are written have a bound

	runs    map[int64][]sample // by rate
	survive string             // a power cut; see survives
}

// sample is one run of a row.
type sample struct {
	measure.Usage
	sent   int64 // by the host, with TLS and headers
	served int64 // bytes of the row's file
	// hostCPU is the CPU time of this process meanwhile, which is the host.
	hostCPU time.Duration
	// kernelCPU is that of the kernel's threads meanwhile, which write what the row wrote.
	kernelCPU time.Duration
}

func (r *row) record(rate int64, s sample) {
	if r.runs == nil {
		r.runs = map[int64][]sample{}
	}
	r.runs[rate] = append(r.runs[rate], s)
}

// rows returns all rows; those that cannot be measured tell why.
func (b *bench) rows(ctx context.Context) ([]*row, error) {
	var all []*row
	rewrites, err := b.rewrites()
	if err != nil {
		return nil, err
	}
	for _, form := range []string{payload.Gz, payload.GzChunks, payload.ZstChunks} {
		cold, resumed := b.ours(form, b.release, ""), b.ours(form, b.release, "")
		resumed.name, resumed.form, resumed.resumed = form+"-resumed", "the rest, after the process was killed half way", true
		resumed.rewrites = rewrites
		all = append(all, cold, resumed)
	}
	slices.SortStableFunc(all, func(x, y *row) int { return boolInt(x.resumed) - boolInt(y.resumed) })
	list, err := peers.All()
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		all = append(all, b.peer(ctx, p))
	}
	all = append(all, b.existing(b.release, ""))
	all = append(all, b.limits()...)
	if b.big != nil {
		for _, form := range []string{payload.Gz, payload.GzChunks, payload.ZstChunks} {
			all = append(all, b.memory(form, b.ours(form, b.big, "-big")))
		}
		all = append(all, b.memory("existing", b.existing(b.big, "-big")))
	}
	return all, nil
}

// rewrites reports whether the file system of the targets cannot be read from its disk.
func (b *bench) rewrites() (bool, error) {
	f, err := os.CreateTemp(b.dir, "from-disk-")
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	r, err := fsutil.ReadFromDisk(f)
	if errors.Is(err, errors.ErrUnsupported) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, r.Close()
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// memory makes r a row of the padded payload, beside the row of that name.
func (b *bench) memory(name string, r *row) *row {
	r.group, r.once, r.unlimited = groupMemory, true, true
	r.name, r.base = b.memoryName(name), name
	r.form += fmt.Sprintf(", tarball of %d MB", b.o.sizeMB)
	return r
}

func (b *bench) memoryName(name string) string { return fmt.Sprintf("%s-%dMB", name, b.o.sizeMB) }

// wants reports whether a row of that name was asked for, or one that is derived from it.
func (b *bench) wants(name string) bool {
	return b.o.wants(name) || b.o.wants(name+"-resumed") || b.o.wants(b.memoryName(name))
}

// ours is the row of our agent with a form of a release.
func (b *bench) ours(form string, rel *payload.Release, suffix string) *row {
	r := &row{name: form + suffix, group: groupOurs, form: map[string]string{
		payload.Gz: "our agent, tar.gz", payload.GzChunks: "our agent, tar.gz with digests of chunks", payload.ZstChunks: "our agent, tar.zst with digests of chunks",
	}[form], tree: rel.Tree, bounds: true}
	if err := rel.Offers(form); err != nil {
		r.why = err.Error()
		return r
	}
	if !b.wants(form) {
		return r
	}
	name := strings.ReplaceAll(form, "+", "-") + suffix
	trust := b.trusts[name]
	if trust == "" {
		var err error
		if trust, err = rel.Publish(b.dir, name, form, b.host.URL, b.host.CA); err != nil {
			r.why = err.Error()
			return r
		}
		b.trusts[name] = trust
	}
	st, err := os.Stat(rel.File(form))
	if err != nil {
		r.why = err.Error()
		return r
	}
	r.file, r.size, r.again = filepath.Base(rel.File(form)), st.Size(), max(1<<20, 2*rel.ChunkSize(form))
	env := []string{"EDGE_AGENT_SIM_TRUST=" + trust}
	r.command = measure.Command{Args: []string{b.tool("node"), "upgrade", b.target(), payload.Version}, Env: env, Started: true}
	r.prepare = func(ctx context.Context) error {
		_, err := b.run(ctx, measure.Command{Args: []string{b.tool("node"), "prepare", b.target()}, Env: env})
		return err
	}
	r.active = b.current
	return r
}

// current is the link to what the target runs.
func (b *bench) current(context.Context) (string, error) {
	l, err := state.At(b.target())
	return l.Current(), err
}

// existing emulates the existing agent.
func (b *bench) existing(rel *payload.Release, suffix string) *row {
	url, err := b.serve(rel.TarGz, "limits"+suffix)
	r := &row{name: "existing" + suffix, group: groupLegacy, form: "the existing agent, emulated: in memory, no sync", tree: rel.Tree}
	if err != nil {
		r.why = err.Error()
	}
	r.command = measure.Command{Args: []string{b.tool("limits"), "existing", url, b.ca(), b.target()}}
	link := filepath.Join(b.target(), "running")
	r.prepare = func(context.Context) error {
		return errors.Join(os.MkdirAll(filepath.Join(b.target(), "installed", "1.0.0"), 0o755), os.Symlink("installed/1.0.0", link))
	}
	r.active = func(context.Context) (string, error) { return link, nil }
	return r
}

// limits are the parts of an upgrade alone.
func (b *bench) limits() []*row {
	part := func(name, form string, args ...string) *row {
		return &row{name: name, group: groupLimit, form: form, unlimited: true, command: measure.Command{Args: append([]string{b.tool("limits")}, args...)}}
	}
	gz, err1 := b.serve(b.release.TarGz, "limits")
	zst, err2 := b.serve(b.release.TarZst, "limits")
	all := []*row{
		part("transfer-gz", "the tar.gz over HTTPS, dropped", "transfer", gz, b.ca()),
		part("transfer-zst", "the tar.zst over HTTPS, dropped", "transfer", zst, b.ca()),
		part("sha256-gz", "SHA-256 of the tar.gz", "sha256", b.release.TarGz),
		part("gunzip", "decompression of the tar.gz, one core", "gunzip", b.release.TarGz),
		part("unzstd", "decompression of the tar.zst, one core", "unzstd", b.release.TarZst),
		part("write", "write and fsync of each file of the payload", "write", b.release.Tree, b.target()),
	}
	all[0].unlimited, all[1].unlimited = false, false
	if err := errors.Join(err1, err2); err != nil {
		all[0].why, all[1].why = err.Error(), err.Error()
	}
	return all
}

// peer is the row of another updater.
func (b *bench) peer(ctx context.Context, p peers.Peer) *row {
	r := &row{name: p.Name, group: groupPeer, form: p.Form, tree: b.release.Tree}
	if !b.o.wants(p.Name) {
		return r
	}
	if missing := p.Missing(); len(missing) > 0 {
		r.why = "not installed: " + strings.Join(missing, " ")
		b.missing = append(b.missing, missing...)
		return r
	}
	if p.Root && !b.root {
		r.why = "needs root and a mount namespace"
		return r
	}
	w := peers.Place{
		Tree: b.release.Tree, Gz: b.release.TarGz, Zst: b.release.TarZst, Dir: filepath.Join(b.dir, "peers", p.Name),
		WWW: filepath.Join(b.dir, "www", "peers", p.Name), URL: b.host.URL + "/peers/" + p.Name, CA: b.ca(), Target: b.target(), Size: b.unpacked,
	}
	scripts := filepath.Join(b.dir, "scripts")
	call := func(ctx context.Context, f string) (string, error) { return p.Call(ctx, scripts, w, f) }
	fails := func(err error) *row { r.why = err.Error(); return r }
	if err := errors.Join(os.MkdirAll(w.Dir, 0o755), os.MkdirAll(w.WWW, 0o755)); err != nil {
		return fails(err)
	}
	version, err := call(ctx, "version")
	if err != nil {
		return fails(err)
	}
	b.versions = append(b.versions, strings.Split(version, "\n")...)
	made, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if _, err := call(made, "make"); err != nil {
		return fails(err)
	}
	r.command = measure.Command{Args: p.Args(scripts, "install"), Env: w.Env(), Services: filepath.Join(w.Dir, "pids")}
	r.prepare = func(ctx context.Context) error {
		_, err := call(ctx, "prepare")
		return err
	}
	r.detach = func(ctx context.Context) { call(ctx, "detach") }
	r.active = func(ctx context.Context) (string, error) { return call(ctx, "active") }
	r.inactive = func(ctx context.Context) { call(ctx, "inactive") }
	return r
}
