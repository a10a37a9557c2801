package inflate

import (
	"bytes"
	"testing"
)

// FuzzInflate compares the reader with compress/gzip on any bytes.
func FuzzInflate(f *testing.F) {
	for _, file := range small(f) {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, buffer := range []int{16, 4096} {
			compare(t, "member", ours(bytes.NewReader(file), buffer), theirs(bytes.NewReader(file)))
		}
	})
}

// FuzzBlocks compares them on any blocks, behind a valid header.
func FuzzBlocks(f *testing.F) {
	header := pack(f, 6, nil)[:10]
	for _, file := range small(f) {
		f.Add(file[10:])
	}
	f.Fuzz(func(t *testing.T, blocks []byte) {
		file := append(bytes.Clone(header), blocks...)
		compare(t, "blocks", ours(bytes.NewReader(file), 4096), theirs(bytes.NewReader(file)))
		file = append(file, make([]byte, 64)...)
		compare(t, "blocks and zeros", ours(bytes.NewReader(file), 4096), theirs(bytes.NewReader(file)))
	})
}

// FuzzMutated compares them on a valid file with some bytes changed.
func FuzzMutated(f *testing.F) {
	for _, data := range samples() {
		f.Add(data[:min(len(data), 5000)], uint8(6), uint32(100), uint64(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, level uint8, at uint32, change uint64) {
		file := pack(t, int(level%12)-2, data)
		compare(t, "unchanged", ours(bytes.NewReader(file), 4096), outcome{data: data})
		for i := range 8 {
			file[(uint64(at)+uint64(i))%uint64(len(file))] ^= byte(change >> (8 * i))
		}
		file = append(file, "what follows"...)
		compare(t, "changed", ours(bytes.NewReader(file), 4096), theirs(bytes.NewReader(file)))
	})
}
