package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	packed "github.com/bilbycast/edge-agent/internal/pack"
	"github.com/bilbycast/edge-agent/internal/tarstream"
	"github.com/bilbycast/edge-agent/release"
	"github.com/klauspost/compress/gzip"
	"github.com/spf13/cobra"
)

// epochEnv is the time that reproducible builds put into archives, in seconds
// (https://reproducible-builds.org/specs/source-date-epoch/).
const epochEnv = "SOURCE_DATE_EPOCH"

// options are the flags of build.
type options struct {
	repository, version, deviceType, channel, floor, out string
	sequence                                             uint64
	commands                                             []string
	firstStart                                           int
	formats                                              []string
	chunks                                               bool
	epoch                                                int64
}

func newBuildCmd() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "build --repository OWNER/REPO --version X.Y.Z --device-type TYPE --sequence N ARCH[:VARIANT]=DIR...",
		Short: "Make the tarballs and the manifest.json of a release",
		Long: `Build packs each DIR into a tarball for ARCH (such as x86_64-linux) and VARIANT
("default"), and writes manifest.json beside them. The tarballs are reproducible:
the same files give the same bytes. Names are sorted, owners are omitted, times
are SOURCE_DATE_EPOCH or 1970, and modes are 0755 or 0644.

Beside each tarball it writes a tar.zst of the same files, which nodes unpack faster,
and it gives the manifest the digests of the chunks of every file: a node then unpacks
what has arrived while the rest is downloaded. Agents that know neither take the
tarball. The chunks have 1 MiB, or as much more as keeps the manifest below 512 KiB.

The sequence must be higher than that of every earlier release, such as the run
number of the workflow.

With --commands the release says what its program understands. A node runs no other
command of it: "config check" (checks a config.toml, before the swap) and "probe"
(tests the link to the manager). With --first-start-secs each start may take so long
until the health check first passes, for a first start that migrates data.`,
		Example: `  release-manifest build --repository acme/edge --version 1.5.0 --device-type edge --sequence 42 \
    --commands probe --commands "config check" x86_64-linux=dist/amd64 aarch64-linux=dist/arm64`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usage(errors.New("no ARCH=DIR given"))
			}
			return cli.ExactArgs(len(args), "repository", "version", "device-type", "sequence")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if v := os.Getenv(epochEnv); v != "" && !cmd.Flags().Changed("epoch") {
				n, err := strconv.ParseInt(v, 10, 64)
				if err != nil {
					return cli.Usage(fmt.Errorf("%s=%q is not a number of seconds", epochEnv, v))
				}
				o.epoch = n
			}
			if cmd.Flags().Changed("first-start-secs") && (o.firstStart < 1 || o.firstStart > release.MaxFirstStartSecs) {
				return cli.Usage(fmt.Errorf("--first-start-secs %d is outside 1 to %d", o.firstStart, release.MaxFirstStartSecs))
			}
			for i, f := range o.formats {
				if slices.Contains(o.formats[:i], f) {
					return cli.Usage(fmt.Errorf("--formats has %s twice", f))
				}
				if f != release.FormatZstd {
					return cli.Usage(fmt.Errorf("--formats %q: known is %s; the tarball is always written", f, release.FormatZstd))
				}
			}
			m, largest, err := build(o, args)
			if err != nil {
				return fmt.Errorf("build: %w", err)
			}
			if o.chunks && largest == 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "the manifest has no digests of chunks: with them it would have %d bytes or more\n", release.GoodManifest)
			}
			for _, a := range m.Artefacts {
				forms, _ := a.Forms()
				for _, f := range slices.Backward(forms) {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", f.SHA256, path.Base(f.URL))
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", filepath.Join(o.out, release.ManifestName))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.repository, "repository", "", "OWNER/REPO on github.com (required)")
	f.StringVar(&o.version, "version", "", "version of the release; its tag is vVERSION (required)")
	f.StringVar(&o.deviceType, "device-type", "", "device type, as in the nodes' config.toml (required)")
	f.StringVar(&o.channel, "channel", release.DefaultChannel, "release channel")
	f.StringVar(&o.floor, "rollback-floor", "", "lowest version that a node may install after this one has proved healthy")
	f.StringSliceVar(&o.commands, "commands", nil, `what the program understands: probe, "config check"; may be repeated`)
	f.IntVar(&o.firstStart, "first-start-secs", 0, fmt.Sprintf("how long a start may take until the health check first passes, 1 to %d", release.MaxFirstStartSecs))
	f.StringSliceVar(&o.formats, "formats", []string{release.FormatZstd}, `formats beside the tarball; "" for none`)
	f.BoolVar(&o.chunks, "chunks", true, "give the manifest the digests of the chunks of every file")
	f.Uint64Var(&o.sequence, "sequence", 0, "sequence number, higher than in every earlier release (required)")
	f.Int64Var(&o.epoch, "epoch", 0, "time in the tarballs and released_at, in seconds since 1970; default: $"+epochEnv)
	f.StringVar(&o.out, "out", "release", "new directory for the files")
	return cmd
}

// build makes the release, and returns its manifest and the size of its largest chunks.
func build(o options, artefacts []string) (m release.Manifest, chunk int64, err error) {
	v, err := release.ParseVersion(o.version)
	if err != nil {
		return m, 0, cli.Usage(fmt.Errorf("--version: %w", err))
	}
	for flag, name := range map[string]string{"device-type": o.deviceType, "channel": o.channel} {
		if err := release.CheckName("--"+flag, name); err != nil {
			return m, 0, cli.Usage(err)
		}
	}
	m = release.Manifest{Version: v, DeviceType: o.deviceType, Channel: o.channel, Sequence: o.sequence, ReleasedAt: time.Unix(o.epoch, 0).UTC(),
		Commands: o.commands, FirstStartSecs: o.firstStart}
	for _, c := range o.commands {
		if c != release.CommandProbe && c != release.CommandConfigCheck { // a node would ignore a misspelt command
			return m, 0, cli.Usage(fmt.Errorf("--commands %q: nodes know %q and %q", c, release.CommandProbe, release.CommandConfigCheck))
		}
	}
	if o.floor != "" {
		if m.RollbackFloor, err = release.ParseVersion(o.floor); err != nil {
			return m, 0, cli.Usage(fmt.Errorf("--rollback-floor: %w", err))
		}
	}
	if o.sequence == 0 {
		return m, 0, cli.Usage(errors.New("--sequence must be 1 or more"))
	}
	base := release.BaseURL("https://github.com/"+o.repository, v)
	var dirs []string
	for _, spec := range artefacts {
		name, dir, ok := strings.Cut(spec, "=")
		arch, variant, _ := strings.Cut(name, ":")
		if variant == "" {
			variant = release.DefaultVariant
		}
		if !ok || arch == "" || dir == "" {
			return m, 0, cli.Usage(fmt.Errorf("%q is not ARCH[:VARIANT]=DIR", spec))
		}
		file := fmt.Sprintf("%s-%s-%s-%s.tar.gz", path.Base(o.repository), v, arch, variant)
		m.Artefacts = append(m.Artefacts, release.Artefact{Arch: arch, Variant: variant, URL: base + "/" + file, SHA256: strings.Repeat("0", 64)})
		dirs = append(dirs, dir)
	}
	if _, err := encode(m); err != nil { // check the fields before packing
		return m, 0, err
	}
	for _, a := range m.Artefacts {
		if err := release.CheckArch(a.Arch); err != nil {
			return m, 0, cli.Usage(err)
		}
	}
	// Write to another directory, and rename it when it is complete.
	if _, err := os.Lstat(o.out); !errors.Is(err, fs.ErrNotExist) {
		return m, 0, fmt.Errorf("%s exists already, and is kept: remove it, or write %s to another directory with --out; never publish other files under a version that is published", o.out, v)
	}
	tmp := o.out + ".making"
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return m, 0, err
	}
	defer os.RemoveAll(tmp)
	for i := range m.Artefacts {
		a := &m.Artefacts[i]
		file, err := a.File(base)
		if err != nil {
			return m, 0, err
		}
		if err := pack(a, filepath.Join(tmp, file), o.formats, dirs[i], time.Unix(o.epoch, 0)); err != nil {
			return m, 0, fmt.Errorf("%s: %w", artefacts[i], err)
		}
	}
	b, chunk, err := packed.Complete(m, tmp, o.formats, o.chunks)
	if err == nil {
		m, err = release.Parse(b)
	}
	if err != nil {
		return m, 0, err
	}
	if err := os.WriteFile(filepath.Join(tmp, release.ManifestName), b, 0o644); err != nil {
		return m, 0, err
	}
	return m, chunk, os.Rename(tmp, o.out)
}

// encode returns manifest.json. Its error is the one that a node would report.
func encode(m release.Manifest) ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	_, err = release.Parse(b)
	return append(b, '\n'), err
}

// pack writes the tree at dir as a gzipped tar, and its other formats beside it, and sets
// the sizes and the digest of a. The tar depends only on the names, contents and x bits of
// the files.
func pack(a *release.Artefact, to string, formats []string, dir string, at time.Time) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var all []io.Writer
	var closers []io.Closer
	closed := func() (err error) {
		for _, c := range slices.Backward(closers) {
			err = errors.Join(err, c.Close())
		}
		closers = nil
		return err
	}
	defer func() { err = errors.Join(err, closed()) }()
	for _, format := range append([]string{release.FormatGzip}, formats...) {
		f, err := os.Create(packed.Name(to, format))
		if err != nil {
			return err
		}
		closers = append(closers, f)
		w, err := packed.Writer(format, f, gzip.BestCompression)
		if err != nil {
			return err
		}
		closers, all = append(closers, w), append(all, w)
	}
	t := tar.NewWriter(io.MultiWriter(all...))
	files := 0
	var entries tarstream.Entries
	put := func(h *tar.Header) error {
		if _, err := entries.Next(h); err != nil {
			return fmt.Errorf("every node would refuse %q: %w", h.Name, err)
		}
		return t.WriteHeader(h)
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error { // sorted by name
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, ModTime: at, Format: tar.FormatPAX, Mode: 0o644}
		switch mode := info.Mode(); {
		case mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0:
			return fmt.Errorf("%s has a set-id or sticky bit, which every node refuses", name)
		case mode.IsDir():
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
			return put(h)
		case mode&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = root.Readlink(name); err != nil {
				return err
			}
			return put(h)
		case !mode.IsRegular():
			return fmt.Errorf("%s is not a file, directory or link", name)
		case mode&0o111 != 0:
			h.Mode = 0o755
		}
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		if err := put(h); err != nil {
			return err
		}
		in, err := root.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		files++
		a.UnpackedSize += h.Size
		_, err = io.Copy(t, in)
		return err
	})
	if err == nil && files == 0 {
		err = errors.New("the directory contains no file")
	}
	if err = errors.Join(err, t.Close(), closed()); err != nil {
		return err
	}
	a.SHA256, a.Size, err = packed.Digest(to)
	return err
}
