package stage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"

	"github.com/bilbycast/edge-agent/release"
)

// chunks is how far a download is, by the signed digests of its chunks.
type chunks struct {
	size  int64
	sums  []string
	piece hash.Hash // of the bytes after good
	good  mark      // the end of the last chunk that is verified, and of those before it
	idle  int       // responses since then
	wrong int       // times that the next chunk was another one

	syncing chan error // the result of the sync that runs; nil: none does
	named   bool       // the name of the file is durable
}

func newChunks(c *release.Chunks) *chunks {
	return &chunks{size: c.Size, sums: c.SHA256, piece: sha256.New()}
}

// begin makes the download begin again.
func (c *chunks) begin() {
	c.piece.Reset()
	c.good, c.idle = mark{}, 0
}

// maxWrong is how often a host may send another chunk than the signed one until it is given up.
const maxWrong = 2

var errChunk = errors.New("is not the signed one")

// byChunk appends to a download, and checks each chunk where it ends.
type byChunk struct {
	d *download
	w io.Writer // the file and the digest of the whole; counts
}

func (w *byChunk) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		piece := b[:min(int64(len(b)), w.d.chunkEnd()-w.d.have)]
		w.d.chunks.piece.Write(piece)
		done, err := w.w.Write(piece)
		n += done
		if err == nil {
			err = w.d.endChunk()
		}
		if err != nil {
			return n, err
		}
		b = b[len(piece):]
	}
	return n, nil
}

// chunkEnd is the byte at which the present chunk ends.
func (d *download) chunkEnd() int64 { return min(d.chunks.good.have+d.chunks.size, d.limit) }

// endChunk verifies the present chunk, if it is complete, lets it be unpacked, and makes it
// durable: a power cut loses at most it and the next one.
func (d *download) endChunk() error {
	ok, err := d.checkChunk()
	if err != nil || !ok {
		return err
	}
	if !d.syncsChunks() || d.have == d.limit {
		return nil
	}
	c := d.chunks
	if err := c.synced(); err != nil {
		return localFault("sync", err)
	}
	c.syncing = make(chan error, 1)
	named := c.named
	c.named = true
	go func() {
		err := d.f.Sync()
		if err == nil && !named {
			err = d.s.Layout.Disk().SyncDir(filepath.Dir(d.path))
		}
		c.syncing <- err
	}()
	return nil
}

// syncsChunks reports whether each chunk is made durable. What is on this device already need not
// be.
func (d *download) syncsChunks() bool { return d.chunks != nil && !d.src.Local() }

// synced waits for the sync that runs.
func (c *chunks) synced() error {
	if c.syncing == nil {
		return nil
	}
	err := <-c.syncing
	c.syncing = nil
	return err
}

// checkChunk verifies the present chunk, if it is complete, and lets it be unpacked.
func (d *download) checkChunk() (complete bool, err error) {
	c := d.chunks
	if d.have < d.chunkEnd() {
		return false, nil
	}
	n := int(c.good.have / c.size)
	if got := hex.EncodeToString(c.piece.Sum(nil)); got != c.sums[n] {
		c.wrong++
		return false, fmt.Errorf("chunk %d of %d of the tarball has the SHA-256 %s, which %w: a captive portal?", n+1, len(c.sums), got, errChunk)
	}
	c.piece.Reset()
	c.idle, c.wrong = 0, 0
	if c.good, err = d.mark(); err != nil {
		return false, err
	}
	d.stream.verify(d.have)
	return true, nil
}

// recheck verifies what an earlier process left, and removes what follows the last chunk that
// is complete and right: the file was not synced to its end.
func (d *download) recheck() error {
	buf := make([]byte, 128<<10)
	for d.have < d.limit {
		n, err := d.f.Read(buf[:min(int64(len(buf)), d.chunkEnd()-d.have)])
		d.chunks.piece.Write(buf[:n])
		d.sum.Write(buf[:n])
		d.have += int64(n)
		if n > 0 {
			_, err = d.checkChunk()
		}
		if err != nil { // also one of the disk: what follows may get sectors that can be read
			break
		}
	}
	d.chunks.wrong = 0
	if err := d.drop(); err != nil {
		return err
	}
	d.s.effort.renewed()
	return nil
}

// drop removes what is not verified.
func (d *download) drop() error {
	c := d.chunks
	c.idle = 0
	if c.good.have == 0 {
		return d.restart()
	}
	err := d.reset(c.good)
	d.s.effort.lose(d.have)
	return err
}

// toBoundary makes the next response begin at a chunk, unless the last one did not complete
// any: a link that breaks within each chunk must get through it.
func (d *download) toBoundary() error {
	if d.have == d.chunks.good.have || d.chunks.idle > 0 {
		return nil
	}
	return d.drop()
}

// refused makes what another name of the repository sent of no effect, but for what is
// verified.
func (d *download) refused() error {
	if d.chunks == nil {
		return d.restart()
	}
	err := d.drop()
	d.chunks.wrong, d.responses, d.etag = 0, 0, ""
	return err
}
