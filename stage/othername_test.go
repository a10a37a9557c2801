package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// answers is a Source that has other files in place of those of the Source in it.
type answers struct {
	Source
	file func(name string, size int64) ([]byte, error) // nil, nil: that of Source
}

func (a answers) Open(ctx context.Context, name string, at int64, etag string) (Part, error) {
	p, err := a.Source.Open(ctx, name, at, etag)
	if err != nil {
		return p, err
	}
	b, err := a.file(name, p.Total)
	if b == nil && err == nil {
		return p, nil
	}
	p.Body.Close()
	return Part{Body: io.NopCloser(bytes.NewReader(b)), End: int64(len(b)), Total: int64(len(b))}, err
}

// Somebody has the given-up name of a repository, and publishes there what they like. The
// release of the other name is staged all the same, and soon.
func TestWhoTakesTheOldNameBlocksNoUpgrade(t *testing.T) {
	t.Parallel()
	notThere := func(int64) ([]byte, error) { return nil, fmt.Errorf("404%w", absent{}) }
	is := func(text string) func(int64) ([]byte, error) {
		return func(int64) ([]byte, error) { return []byte(text), nil }
	}
	fills := func(text string) func(int64) ([]byte, error) {
		return func(size int64) ([]byte, error) {
			return bytes.Repeat([]byte(text), int(size)/len(text)+1)[:size], nil
		}
	}
	for name, old := range map[string]map[string]func(size int64) ([]byte, error){
		"nothing":                         {".json": notThere, ".bundle": notThere, ".gz": notThere},
		"a text":                          {".json": is("hello")},
		"a page":                          {".json": is("<html>")},
		"other JSON":                      {".json": is(`{"a":1}`)},
		"a signature that is a text":      {".bundle": is("hello")},
		"a manifest without a signature":  {".json": is(`{"version":"1.0.0","artefacts":[]}`), ".bundle": notThere},
		"a manifest, a text as signature": {".json": is(`{"version":"1.0.0","artefacts":[]}`), ".bundle": is("hello")},
		"another manifest":                {".json": is(`{"version":"1.0.0","artefacts":[]}`)},
		"another tarball of that size":    {".gz": fills("\x1f\x8b\x08\x00\x00\x01\x02\x03")},
		"a text of that size":             {".gz": fills("hello ")},
		"another tarball":                 {".gz": is("\x1f\x8b\x08\x00\x00")},
		"another text":                    {".gz": is("hello")},
		"no tarball":                      {".gz": notThere},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			good := s.Host(release.MustVersion("1.0.0"))
			taken := answers{good, func(file string, size int64) ([]byte, error) {
				for end, answer := range old {
					if strings.HasSuffix(file, end) {
						return answer(size)
					}
				}
				return nil, nil
			}}
			src := named(taken, good)
			var told atomic.Int32
			s.SetPatience(Patience{Limit: 24 * time.Hour, Waiting: func(Wait) { told.Add(1) }})
			rel, err := s.Fetch(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Stage(t.Context(), src, rel, rel.Manifest().Artefacts[0], func() {}); err != nil {
				t.Fatal(err)
			}
			if n := told.Load(); n > 2 {
				t.Errorf("it waited %d times", n)
			}
		})
	}
}

// The name of the repository that signed is asked first for the tarball.
func TestTheTarballOfTheRepositoryThatSigned(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	good := s.Host(release.MustVersion("1.0.0"))
	other := answers{s.HostAt("https://github.com/acme/other/releases/download/v1.0.0"), nil}
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), named(other, good), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
}

// One name answers that it has no such version, the other is down for a while: the release
// may be there.
func TestAShortOutageOfTheRightName(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"503": errors.New("the host answers 503"), "unreachable": unreachable{errors.New("i/o timeout")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			good := s.Host(release.MustVersion("1.0.0"))
			var fails atomic.Int32
			down := answers{good, func(string, int64) ([]byte, error) {
				if fails.Add(1) > 12 {
					return nil, nil
				}
				return nil, failure
			}}
			old := answers{good, func(string, int64) ([]byte, error) { return nil, fmt.Errorf("404%w", absent{}) }}
			s.SetPatience(Patience{Limit: 24 * time.Hour})
			if _, err := s.Fetch(t.Context(), named(old, down)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A power cut left other bytes than the tarball has, and the host ignores ranges: the download
// begins again soon.
func TestWrongBytesOnDiskAndAHostWithoutRanges(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	if err := s.Layout.Make(); err != nil {
		t.Fatal(err)
	}
	if err := s.Layout.Disk().WriteFile(s.Layout.Download(a.SHA256), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := tarball(t, s, a)
	src := answers{s.Host(rel.Manifest().Version), func(string, int64) ([]byte, error) { return whole, nil }}
	var told atomic.Int32
	s.SetPatience(Patience{Limit: 24 * time.Hour, Waiting: func(Wait) { told.Add(1) }})
	if _, err := s.Stage(t.Context(), src, rel, a, func() {}); err != nil || int(told.Load()) > s.Tries {
		t.Errorf("after %d waits: %v", told.Load(), err)
	}
}
