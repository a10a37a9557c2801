package fakerelease

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
)

// Handler serves dir/www as a release host does: GET and HEAD of files, with ranges and
// strong ETags. It serves no listings and no file whose name starts with a dot.
func Handler(dir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/")
		if !filepath.IsLocal(name) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
			http.NotFound(w, r)
			return
		}
		root, err := os.OpenRoot(filepath.Join(dir, "www"))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer root.Close()
		f, err := root.Open(name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil || !st.Mode().IsRegular() {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, st.ModTime().UnixNano(), st.Size()))
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", st.ModTime(), f)
	})
}

// indexed is the most releases that Index returns, so that an operator can choose.
const indexed = 10

// Index returns the newest 10 releases in dir of a device type and a channel, newest
// version first. An empty device type or channel matches all.
func Index(dir, deviceType, channel string) ([]api.Release, error) {
	repos, err := filepath.Glob(filepath.Join(dir, "www", "*", "*", "releases", "download"))
	if err != nil {
		return nil, err
	}
	var found []release.Manifest
	for _, repo := range repos {
		ms, err := readManifests(repo)
		if err != nil {
			return nil, err
		}
		for _, m := range ms {
			if (deviceType == "" || m.DeviceType == deviceType) && (channel == "" || m.Channel == channel) {
				found = append(found, m)
			}
		}
	}
	slices.SortFunc(found, func(a, b release.Manifest) int { return b.Version.Compare(a.Version) })
	list := make([]api.Release, 0, indexed)
	for _, m := range found[:min(len(found), indexed)] {
		list = append(list, api.Release{Version: m.Version.String(), Channel: m.Channel, DeviceType: m.DeviceType, Sequence: m.Sequence, ReleasedAt: m.ReleasedAt})
	}
	return list, nil
}

// Manifest returns the manifest.json of a version in dir for a device type on a channel; nil:
// there is none. It is an error if two repositories have one.
func Manifest(dir, deviceType, channel, version string) ([]byte, error) {
	if _, err := release.ParseVersion(version); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "www", "*", "*", "releases", "download", "v"+version, release.ManifestName))
	if err != nil {
		return nil, err
	}
	var found []byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m, err := release.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if m.DeviceType != deviceType || m.Channel != channel {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("two repositories have %s for the device type %s on the channel %s", version, deviceType, channel)
		}
		found = b
	}
	return found, nil
}
