package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
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
			m, err := build(o, args)
			if err != nil {
				return fmt.Errorf("build: %w", err)
			}
			for _, a := range m.Artefacts {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", a.SHA256, path.Base(a.URL))
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
	f.Uint64Var(&o.sequence, "sequence", 0, "sequence number, higher than in every earlier release (required)")
	f.Int64Var(&o.epoch, "epoch", 0, "time in the tarballs and released_at, in seconds since 1970; default: $"+epochEnv)
	f.StringVar(&o.out, "out", "release", "new directory for the files")
	return cmd
}

func build(o options, artefacts []string) (release.Manifest, error) {
	v, err := release.ParseVersion(o.version)
	if err != nil {
		return release.Manifest{}, cli.Usage(fmt.Errorf("--version: %w", err))
	}
	for flag, name := range map[string]string{"device-type": o.deviceType, "channel": o.channel} {
		if err := release.CheckName("--"+flag, name); err != nil {
			return release.Manifest{}, cli.Usage(err)
		}
	}
	m := release.Manifest{Version: v, DeviceType: o.deviceType, Channel: o.channel, Sequence: o.sequence, ReleasedAt: time.Unix(o.epoch, 0).UTC(),
		Commands: o.commands, FirstStartSecs: o.firstStart}
	for _, c := range o.commands {
		if c != release.CommandProbe && c != release.CommandConfigCheck { // a node would ignore a misspelt command
			return m, cli.Usage(fmt.Errorf("--commands %q: nodes know %q and %q", c, release.CommandProbe, release.CommandConfigCheck))
		}
	}
	if o.floor != "" {
		if m.RollbackFloor, err = release.ParseVersion(o.floor); err != nil {
			return m, cli.Usage(fmt.Errorf("--rollback-floor: %w", err))
		}
	}
	if o.sequence == 0 {
		return m, cli.Usage(errors.New("--sequence must be 1 or more"))
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
			return m, cli.Usage(fmt.Errorf("%q is not ARCH[:VARIANT]=DIR", spec))
		}
		file := fmt.Sprintf("%s-%s-%s-%s.tar.gz", path.Base(o.repository), v, arch, variant)
		m.Artefacts = append(m.Artefacts, release.Artefact{Arch: arch, Variant: variant, URL: base + "/" + file, SHA256: strings.Repeat("0", 64)})
		dirs = append(dirs, dir)
	}
	if _, err := encode(m); err != nil { // check the fields before packing
		return m, err
	}
	for _, a := range m.Artefacts {
		if err := release.CheckArch(a.Arch); err != nil {
			return m, cli.Usage(err)
		}
	}
	// Write to another directory, and rename it when it is complete.
	if _, err := os.Lstat(o.out); !errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s exists already, and is kept: remove it, or write %s to another directory with --out; never publish other files under a version that is published", o.out, v)
	}
	tmp := o.out + ".making"
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return m, err
	}
	defer os.RemoveAll(tmp)
	for i := range m.Artefacts {
		a := &m.Artefacts[i]
		file, err := a.File(base)
		if err != nil {
			return m, err
		}
		if err := pack(a, filepath.Join(tmp, file), dirs[i], time.Unix(o.epoch, 0)); err != nil {
			return m, fmt.Errorf("%s: %w", artefacts[i], err)
		}
	}
	b, err := encode(m)
	if err != nil {
		return m, err
	}
	if err := os.WriteFile(filepath.Join(tmp, release.ManifestName), b, 0o644); err != nil {
		return m, err
	}
	return m, os.Rename(tmp, o.out)
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

// pack writes the tree at dir as a gzipped tar, and sets the sizes and the digest of a.
// The tar depends only on the names, contents and x bits of the files.
func pack(a *release.Artefact, to, dir string, at time.Time) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	count := &counter{w: io.MultiWriter(f, sum)}
	gz, err := gzip.NewWriterLevel(count, gzip.BestCompression) // its header has no name and no time
	if err != nil {
		return err
	}
	t := tar.NewWriter(gz)
	files := 0
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
			return t.WriteHeader(h)
		case mode&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = root.Readlink(name); err != nil {
				return err
			}
			if !filepath.IsLocal(filepath.Join(filepath.Dir(name), h.Linkname)) || filepath.IsAbs(h.Linkname) {
				return fmt.Errorf("%s points out of the release, to %s", name, h.Linkname)
			}
			return t.WriteHeader(h)
		case !mode.IsRegular():
			return fmt.Errorf("%s is not a file, directory or link", name)
		case mode&0o111 != 0:
			h.Mode = 0o755
		}
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		if err := t.WriteHeader(h); err != nil {
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
	if err = errors.Join(err, t.Close(), gz.Close()); err != nil {
		return err
	}
	a.Size, a.SHA256 = count.n, hex.EncodeToString(sum.Sum(nil))
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
