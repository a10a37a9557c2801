package fakerelease

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/release"
)

// Bundle writes the files of a published release to one new tar file, for `edge-agent
// stage --from`. A failure leaves no file.
func Bundle(dir, repository, version, to string) (err error) {
	v, err := release.ParseVersion(version)
	if err != nil {
		return err
	}
	if !repositories.MatchString(repository) {
		return fmt.Errorf("repository %q is not OWNER/REPO", repository)
	}
	from := filepath.Join(releasesDir(dir, repository), "v"+v.String())
	if _, err := os.Stat(filepath.Join(from, release.ManifestName)); err != nil {
		return fmt.Errorf("%s of %s is not published here: %w", v, repository, err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	if err = w.AddFS(os.DirFS(from)); err == nil {
		err = w.Close()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(to)
	}
	return err
}
