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
	epoch                                                int64
}

func newBuildCmd() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "build --repository OWNER/REPO --version X.Y.Z --device-type TYPE --sequence N ARCH[:VARIANT]=DIR...",
		Short: "Make the tarballs of a release, and its manifest.json",
		Long: `Build packs each DIR into a tarball for ARCH (as x86_64-linux) and VARIANT
("default"), and writes manifest.json beside them. The same files give the same
bytes, anywhere: names are sorted, owners and times are left out (times are
SOURCE_DATE_EPOCH, or 1970), modes are 0755 or 0644.

The sequence must be higher than that of every release before; the number of
the workflow's run is one.`,
		Example: `  release-manifest build --repository acme/edge --version 1.5.0 --device-type edge --sequence 42 \
    x86_64-linux=dist/amd64 aarch64-linux=dist/arm64`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usage(errors.New("no ARCH=DIR was given"))
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
	f.StringVar(&o.version, "version", "", "of the release; its tag is v and this (required)")
	f.StringVar(&o.deviceType, "device-type", "", "as the nodes' config.toml has it (required)")
	f.StringVar(&o.channel, "channel", release.DefaultChannel, "release channel")
	f.StringVar(&o.floor, "rollback-floor", "", "lowest version that a node may go back to once this one has proved healthy")
	f.Uint64Var(&o.sequence, "sequence", 0, "number of the release, upwards (required)")
	f.Int64Var(&o.epoch, "epoch", 0, "time in the tarballs and released_at, in seconds since 1970; default: $"+epochEnv)
	f.StringVar(&o.out, "out", "release", "directory to write to; must not be there yet")
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
	m := release.Manifest{Version: v, DeviceType: o.deviceType, Channel: o.channel, Sequence: o.sequence, ReleasedAt: time.Unix(o.epoch, 0).UTC()}
	if o.floor != "" {
		if m.RollbackFloor, err = release.ParseVersion(o.floor); err != nil {
			return m, cli.Usage(fmt.Errorf("--rollback-floor: %w", err))
		}
	}
	if o.sequence == 0 {
		return m, cli.Usage(errors.New("--sequence has to be 1 or more"))
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
	if _, err := encode(m); err != nil { // before anything is packed
		return m, err
	}
	// Made aside, and renamed when it is whole.
	if _, err := os.Lstat(o.out); !errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s is there already", o.out)
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

// encode returns manifest.json, and what a node would say to it.
func encode(m release.Manifest) ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	_, err = release.Parse(b)
	return append(b, '\n'), err
}

// pack writes the tree at dir as a gzipped tar. What it holds depends on names,
// bytes and x bits alone. It completes a.
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
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error { // in order of names
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
			return fmt.Errorf("%s has a set-id or sticky bit, which no node takes", name)
		case mode.IsDir():
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
			return t.WriteHeader(h)
		case mode&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = root.Readlink(name); err != nil {
				return err
			}
			if !filepath.IsLocal(filepath.Join(filepath.Dir(name), h.Linkname)) || filepath.IsAbs(h.Linkname) {
				return fmt.Errorf("%s leads out of the release, to %s", name, h.Linkname)
			}
			return t.WriteHeader(h)
		case !mode.IsRegular():
			return fmt.Errorf("%s is neither a file, a directory nor a link", name)
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
		err = errors.New("there is no file in it")
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
