package wire_test

import (
	"testing"

	"github.com/bilbycast/edge-agent/wire"
)

// BenchmarkDecode decodes one message of each kind.
func BenchmarkDecode(b *testing.B) {
	for _, f := range frames {
		b.Run(f.name, func(b *testing.B) {
			frame := []byte(f.frame)
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := wire.Decode(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncode encodes one message of each kind.
func BenchmarkEncode(b *testing.B) {
	for _, f := range frames {
		if _, unknown := f.want.(*wire.Unknown); unknown {
			continue
		}
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := wire.Encode(f.want, at); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
