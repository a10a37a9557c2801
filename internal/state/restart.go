package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
)

// restartSize is the size of RestartFile in bytes: an invocation id, " start" and a line
// break. It never changes, so that a full disk does not matter.
const restartSize = 32 + 6 + 1

// AskRestart requests the end of the start of the service with that invocation id. start
// requests a start as well if the service is inactive. An empty invocation stands for any
// start, and for both.
//
// Once there was a request, another one needs no free space: it overwrites the file. If
// that fails, as it can on a full disk that copies on write, the request is for any start.
func (l Layout) AskRestart(invocation string, start bool) error {
	line := invocation
	if start && invocation != "" {
		line += " start"
	}
	if _, _, err := parseRestart(line); err != nil {
		return err
	}
	text := []byte(fmt.Sprintf("%-*s\n", restartSize-1, line))
	for _, path := range []string{l.RestartFile(), l.RestartSpare()} {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := l.rewrite(path, text); err != nil {
			break // something else has that name
		}
		return l.publishRestart()
	}
	return l.disk.WriteFile(l.RestartFile(), text, 0o600)
}

// rewrite replaces the content of a file, or empties the file.
func (l Layout) rewrite(path string, text []byte) (err error) {
	f, err := l.disk.Create(path, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return f.Truncate(0)
	}
	return f.Truncate(int64(len(text)))
}

// publishRestart gives RestartSpare its other name, unless a request is there.
func (l Layout) publishRestart() error {
	if _, err := os.Lstat(l.RestartFile()); err == nil {
		return nil
	}
	return l.disk.Rename(l.RestartSpare(), l.RestartFile())
}

// WithdrawRestart takes a request back that nothing has served yet.
func (l Layout) WithdrawRestart() error {
	if err := l.disk.Rename(l.RestartFile(), l.RestartSpare()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReadRestart returns the request that was written last: the start that is to end, and whether a
// service that is inactive is to be started. An invocation of "" stands for any start. ok is
// false if there is no request. It follows no link, and never blocks on a FIFO.
func (l Layout) ReadRestart() (invocation string, start, ok bool, err error) {
	path := l.RestartFile()
	b, err := fsutil.ReadFile(path, restartSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, false, nil
	case fsutil.WrongKind(err):
		return "", false, false, fmt.Errorf("%w: it is no request for a restart; remove it: rm -rf %s", err, path)
	case err != nil:
		return "", false, false, err
	}
	if invocation, start, err = parseRestart(string(b)); err != nil {
		return "", false, false, fmt.Errorf("%s: %w", path, err)
	}
	return invocation, start, true, nil
}

// parseRestart parses the content of RestartFile. Earlier agents wrote an empty file, for any
// start.
func parseRestart(text string) (invocation string, start bool, err error) {
	invocation, start = strings.CutSuffix(strings.TrimRight(text, " \n"), " start")
	if invocation == "" && !start {
		return "", true, nil
	}
	if len(invocation) != 32 || strings.Trim(invocation, "0123456789abcdef") != "" {
		return "", false, fmt.Errorf("%.60q is no request for a restart: it must be an invocation id of 32 hex digits, which may be followed by \" start\"", text)
	}
	return invocation, start, nil
}
