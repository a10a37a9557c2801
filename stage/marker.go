package stage

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// Marker is the file in the top of a version's directory that records what the version
// was made from. It is written last; an archive cannot contain one.
const Marker = state.ReleaseFile

type marker struct {
	Version release.Version `json:"version"`
	SHA256  string          `json:"sha256"` // of the tarball
	// ManifestSHA256 is that of the manifest's bytes; "" in a marker of an agent that did not
	// record it.
	ManifestSHA256 string `json:"manifest_sha256,omitzero"`
	// Sequence is the manifest's; 0 in a marker of an agent that did not know it.
	Sequence uint64 `json:"sequence,omitzero"`
	// Program is the service's program, relative to the directory; "" in a marker of
	// an agent that did not record it.
	Program string `json:"program,omitzero"`
	// Record is the SHA-256 of state.DigestsFile; "" in a marker of an agent that did not
	// record it.
	Record string `json:"record,omitzero"`
	// Commands and FirstStartSecs are the manifest's.
	Commands       []string `json:"commands,omitempty"`
	FirstStartSecs int      `json:"first_start_secs,omitzero"`
	// SignedAt is when a log or a timestamp authority says that the release was signed; zero
	// in a marker of an agent that did not record it.
	SignedAt time.Time `json:"signed_at,omitzero"`
}

// of returns m with what the release says beside the files.
func (m marker) of(rel verify.Release) marker {
	manifest := rel.Manifest()
	m.SignedAt, m.ManifestSHA256 = rel.Signature().Time.UTC(), rel.ManifestSHA256()
	m.Sequence, m.Commands, m.FirstStartSecs = manifest.Sequence, manifest.Commands, manifest.FirstStartSecs
	return m
}

func readMarker(l state.Layout, v release.Version) (marker, error) {
	var m marker
	b, err := fsutil.ReadFile(filepath.Join(l.Version(v), Marker), 4<<10)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, err
	}
	if m.Version != v {
		return m, fmt.Errorf("marker of %s names %s", v, m.Version)
	}
	return m, nil
}

// write writes m into the directory dir of a version.
func (m marker) write(disk fsutil.Disk, dir string) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return disk.WriteFile(filepath.Join(dir, Marker), append(b, '\n'), 0o644)
}

// republished keeps in the marker m of an installed version what a later manifest says of
// the same files: a publisher may declare the commands of a program afterwards, or how
// long its first start takes. An earlier manifest changes nothing.
func (s *Stager) republished(m marker, later verify.Release) error {
	next := m.of(later)
	if later.Manifest().Sequence < m.Sequence || reflect.DeepEqual(next, m) {
		return nil
	}
	return next.write(s.Layout.Disk(), s.Layout.Version(m.Version))
}

// SequenceOf returns the sequence of the manifest from which an installed version was made;
// 0: its marker does not have it.
func SequenceOf(l state.Layout, v release.Version) uint64 {
	m, _ := readMarker(l, v)
	return m.Sequence
}

// ManifestOf returns the SHA-256 of the manifest from which an installed version was made, in
// lower-case hex; "": its marker does not have it.
func ManifestOf(l state.Layout, v release.Version) string {
	m, _ := readMarker(l, v)
	if !release.IsSHA256(m.ManifestSHA256) { // the file was changed by hand
		return ""
	}
	return m.ManifestSHA256
}

// CommandsOf returns the commands that the manifest of an installed version declares. A
// version that an earlier agent staged declares none. No other command may be run of a
// version.
func CommandsOf(l state.Layout, v release.Version) []string {
	m, _ := readMarker(l, v)
	return m.Commands
}

// FirstStartOf returns how long each start of an installed version may take until its
// health check first passes, as its manifest says; 0: it says nothing.
func FirstStartOf(l state.Layout, v release.Version) time.Duration {
	m, _ := readMarker(l, v)
	if m.FirstStartSecs < 0 || m.FirstStartSecs > release.MaxFirstStartSecs {
		return 0 // the file was changed by hand
	}
	return time.Duration(m.FirstStartSecs) * time.Second
}

// Clock returns the clock of this device. Certain is when the newest release that is
// installed in l was signed, or when this program was built. now is for tests; nil means the
// device's own.
func Clock(l state.Layout, now func() time.Time) cert.Clock {
	var signed time.Time
	proof := ""
	if l.Root() != "" {
		t, _ := l.Tree() // without it the time of this program counts
		for _, v := range t.Versions {
			if m, err := readMarker(l, v); err == nil && m.SignedAt.After(signed) {
				signed, proof = m.SignedAt, fmt.Sprintf("release %s was signed", v)
			}
		}
	}
	return cert.NewClock(now, signed, proof)
}

// ClockOf returns Clock by this device's clock, for one who asks it now and then.
func ClockOf(l state.Layout) func() cert.Clock {
	return func() cert.Clock { return Clock(l, nil) }
}
