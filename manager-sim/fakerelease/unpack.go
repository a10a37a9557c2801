package fakerelease

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/release"
	"github.com/klauspost/compress/gzip"
)

// Unpack writes the files of a published release for this machine and the default
// variant to the existing directory to, and returns the manifest. It verifies no
// signature: the caller published the release.
func Unpack(dir, repository, version, to string) (release.Manifest, error) {
	m, err := unpack(dir, repository, version, to)
	if err != nil {
		return m, fmt.Errorf("unpack %s of %s: %w", version, repository, err)
	}
	return m, nil
}

func unpack(dir, repository, version, to string) (release.Manifest, error) {
	v, err := release.ParseVersion(version)
	if err != nil {
		return release.Manifest{}, err
	}
	from := filepath.Join(releasesDir(dir, repository), "v"+v.String())
	b, err := os.ReadFile(filepath.Join(from, release.ManifestName))
	if err != nil {
		return release.Manifest{}, err
	}
	m, err := release.Parse(b)
	if err != nil {
		return m, err
	}
	for _, a := range m.Artefacts {
		if a.Arch != release.HostArch() || a.Variant != release.DefaultVariant {
			continue
		}
		file, err := a.File(release.BaseURL("https://github.com/"+repository, v))
		if err != nil {
			return m, err
		}
		return m, unpackTarball(filepath.Join(from, file), to)
	}
	return m, fmt.Errorf("there is no tarball for %s", release.HostArch())
}

func unpackTarball(tarball, to string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(gz); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%q is no regular file", h.Name)
		}
		if err := writeFile(root, h, t); err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, h *tar.Header, from io.Reader) error {
	name := filepath.Clean(h.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(h.Mode)&0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	return errors.Join(err, out.Close())
}
