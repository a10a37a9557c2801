package state

import (
	"os"
	"testing"
	"time"
)

// BenchmarkRead reads state.json, the links and the names of the versions.
func BenchmarkRead(b *testing.B) {
	l := root(b)
	do(b, l, begin)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDo makes one change: locks, reads, and writes state.json durably.
func BenchmarkDo(b *testing.B) {
	l := root(b)
	do(b, l, begin)
	starts := 0
	b.ReportAllocs()
	for b.Loop() {
		starts++
		do(b, l, func(s State, t Tree, _ time.Time) (State, Tree, error) {
			s.BootAttempts = 1 + starts%2 // a change each time
			return s, t, nil
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	text, err := os.ReadFile("../../testdata/state/v1.json")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
