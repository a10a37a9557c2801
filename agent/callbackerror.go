package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// maxErrorText bounds the text of an error that a callback returns, in bytes.
const maxErrorText = 4 << 10

// plainError is what the agent keeps of an error that a callback returned. Its methods call none
// of the author's, so that it can be read anywhere.
type plainError struct {
	text    string
	timeout bool
	found   []error // by errors.Is and errors.As
}

func (e *plainError) Error() string   { return e.text }
func (e *plainError) Timeout() bool   { return e.timeout }
func (e *plainError) Unwrap() []error { return e.found }

// plain returns what the agent keeps of err: its text, with what fsutil.NameDenial adds, the
// code of a release.Error, and whether it is a timeout, the end of a context, or a full disk.
// It calls methods of err, which may panic or hang: only callback.run calls it.
func plain(err error) error {
	err = fsutil.NameDenial(err)
	e := &plainError{text: boundedText(err.Error())}
	e.timeout = isTimeout(err)
	var coded *release.Error
	if errors.As(err, &coded) {
		e.found = append(e.found, &release.Error{Code: release.Code(strings.Clone(string(coded.Code))), Err: errors.New(e.text)})
	}
	for _, kind := range []error{context.Canceled, context.DeadlineExceeded, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, kind) {
			e.found = append(e.found, kind)
		}
	}
	return e
}

// boundedText returns a copy of text that has at most maxErrorText bytes.
func boundedText(text string) string {
	if len(text) <= maxErrorText {
		return text
	}
	const end = "..."
	return strings.ToValidUTF8(text[:maxErrorText-len(end)], "") + end
}

// cannotRead begins the sentence that an error, whose methods misbehave, turns into.
func cannotRead(err error) string {
	return "returned an error that cannot be read (" + release.Foreign(fmt.Sprintf("%T", err), release.MaxNameLen) + "): a method of it "
}
