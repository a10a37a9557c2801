package stage

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// BenchmarkStage fetches a release over loopback, extracts and syncs it. Bytes are those
// that are unpacked: this test's program. A stick has no link between.
func BenchmarkStage(b *testing.B) {
	const version = "1.1.0"
	dir := b.TempDir()
	program := dir + "/program"
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		b.Fatal(err)
	}
	p, err := fakerelease.Publish(dir, fakerelease.Options{Version: version, Binary: program, Extra: map[string]string{"tool": os.Args[0]},
		Formats: []string{release.FormatZstd}, Chunks: true})
	if err != nil {
		b.Fatal(err)
	}
	host := httptest.NewTLSServer(fakerelease.Handler(dir))
	b.Cleanup(host.Close)
	x, err := fakerelease.NewTrust(dir, host.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}))
	if err != nil {
		b.Fatal(err)
	}
	v := release.MustVersion(version)
	fromHost := func(s *Stager) (Source, error) { return s.Host(v), nil }
	fromStick := func(*Stager) (Source, error) { return OpenSource(p.Dir) }
	all := func(*release.Artefact) {}
	for _, bb := range []struct {
		name string
		open func(*Stager) (Source, error)
		form func(*release.Artefact)
	}{
		{"from=host/form=gz", fromHost, func(a *release.Artefact) { a.Chunks, a.Formats = nil, nil }},
		{"from=host/form=gz+chunks", fromHost, func(a *release.Artefact) { a.Formats = nil }},
		{"from=host/form=zst+chunks", fromHost, all},
		{"from=stick/form=zst+chunks", fromStick, all},
	} {
		b.Run(bb.name, func(b *testing.B) {
			l, err := state.At(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			s, err := New(Config{Layout: l, Binary: "edge-agent", NoRun: true, Trust: x})
			if err != nil {
				b.Fatal(err)
			}
			src, err := bb.open(s)
			if err != nil {
				b.Fatal(err)
			}
			defer src.Close()
			rel, err := s.Fetch(b.Context(), src)
			if err != nil {
				b.Fatal(err)
			}
			a := rel.Manifest().Artefacts[0]
			bb.form(&a)
			b.SetBytes(a.UnpackedSize)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Stage(b.Context(), src, rel, a, func() {}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := os.RemoveAll(l.Version(v)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkDigests compares an installed version with its record, as before each trial.
func BenchmarkDigests(b *testing.B) {
	s := setup(b, nil)
	rel, a := fetch(b, s, twoMegabytes)
	src := s.Host(rel.Manifest().Version)
	defer src.Close()
	if _, err := s.Stage(b.Context(), src, rel, a, func() {}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(a.UnpackedSize)
	b.ReportAllocs()
	for b.Loop() {
		if !intact(b.Context(), s.Layout, rel.Manifest().Version) {
			b.Fatal("the version is not intact")
		}
	}
}
