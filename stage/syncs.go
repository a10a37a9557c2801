package stage

import (
	"errors"
	"sync"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

// syncs makes files durable and closes them, while the next ones are written.
type syncs struct {
	once  sync.Once
	queue chan *fsutil.File
	all   sync.WaitGroup

	mu  sync.Mutex
	err error // the first one
}

// maxSyncs bounds the files that are open at a time: some services may open few.
const maxSyncs = 4

// add takes over a file that is written. It returns the first error of an earlier one.
func (s *syncs) add(f *fsutil.File) error {
	s.once.Do(func() {
		s.queue = make(chan *fsutil.File)
		for range maxSyncs {
			s.all.Go(s.work)
		}
	})
	s.queue <- f
	return s.failed()
}

func (s *syncs) work() {
	for f := range s.queue {
		err := f.Sync()
		if err = errors.Join(err, f.Close()); err == nil {
			continue
		}
		s.mu.Lock()
		if s.err == nil {
			s.err = err
		}
		s.mu.Unlock()
	}
}

func (s *syncs) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// wait returns once every file is closed, with the first error.
func (s *syncs) wait() error {
	s.once.Do(func() { s.queue = make(chan *fsutil.File) })
	close(s.queue)
	s.all.Wait()
	return s.failed()
}

// early appends to a file, and asks the kernel every so many bytes to begin with what the sync at
// the end would wait for.
type early struct {
	f       *fsutil.File
	every   int64
	n, done int64
}

func (e *early) Write(b []byte) (int, error) {
	n, err := e.f.Write(b)
	e.n += int64(n)
	if e.n-e.done >= e.every {
		// It is a hint: the sync reports what is wrong.
		unix.SyncFileRange(int(e.f.Fd()), e.done, e.n-e.done, unix.SYNC_FILE_RANGE_WRITE)
		e.done = e.n
	}
	return n, err
}
