package stage

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// stream reads a download while it is being made. It returns only bytes that are verified:
// Read waits for more.
type stream struct {
	file *os.File
	size int64 // of the whole file
	at   int64 // of the next Read

	mu       sync.Mutex
	changed  sync.Cond
	verified int64 // the first bytes of file that are proved to be the signed ones
	err      error // of the download, which has ended

	fewer atomic.Uint64 // counts how often verified shrank: the file may have other bytes since then
}

func newStream(file *os.File, size int64) *stream {
	s := &stream{file: file, size: size}
	s.changed.L = &s.mu
	return s
}

// verify says that the first n bytes are proved, and no others.
func (s *stream) verify(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < s.verified {
		s.fewer.Add(1)
	}
	s.verified = n
	s.changed.Broadcast()
}

// end makes every Read that would wait return err.
func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.changed.Broadcast()
}

// errDownloaded ends a stream whose download is complete, and errStopped one that nobody reads.
var (
	errDownloaded = errors.New("the download is complete")
	errStopped    = errors.New("the download is not unpacked any more")
)

func (s *stream) Read(b []byte) (int, error) {
	for {
		most, fewer, err := s.wait()
		if err != nil {
			return 0, err
		}
		n, err := s.file.ReadAt(b[:min(int64(len(b)), most)], s.at)
		if s.fewer.Load() == fewer {
			if n > 0 || err != io.EOF {
				s.at += int64(n)
				return n, err
			}
			// Another process shortened the file. The download finds that, and begins again.
			if err := s.change(fewer); err != nil {
				return 0, err
			}
		}
	}
}

// wait returns how many verified bytes follow; io.EOF at the end.
func (s *stream) wait() (most int64, fewer uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.at < s.size {
		if s.verified > s.at {
			return s.verified - s.at, s.fewer.Load(), nil
		}
		if s.err != nil {
			return 0, 0, s.err
		}
		s.changed.Wait()
	}
	return 0, 0, io.EOF
}

// change waits until less is verified.
func (s *stream) change(fewer uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.fewer.Load() == fewer {
		if s.err == errDownloaded {
			return io.ErrUnexpectedEOF
		}
		if s.err != nil {
			return s.err
		}
		s.changed.Wait()
	}
	return nil
}
