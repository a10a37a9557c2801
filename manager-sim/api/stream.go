package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxRecord bounds a line of the stream, in bytes.
const maxRecord = 1 << 20

// Stream is an open event stream. One goroutine may call Next while another calls
// Close.
type Stream struct {
	body io.ReadCloser
	r    *bufio.Reader
}

func newStream(body io.ReadCloser) *Stream {
	return &Stream{body, bufio.NewReaderSize(body, maxRecord)}
}

// Next waits for the next record. The first one is a heartbeat (Type ""): it says
// that the manager listens, so that nothing that happens from then on is missed.
// More of them follow while nothing happens, every 15 s. Records longer than 1 MiB,
// and lines that are no record, are left out.
//
// The error wraps ErrUnreachable when the stream ends. Stream of the Client, with
// the Seq of the last event, continues it.
func (s *Stream) Next() (Record, error) {
	for {
		line, err := s.r.ReadSlice('\n')
		tooLong := false
		for errors.Is(err, bufio.ErrBufferFull) {
			tooLong = true
			_, err = s.r.ReadSlice('\n')
		}
		if err != nil {
			return Record{}, fmt.Errorf("%w: the event stream ended: %w", ErrUnreachable, err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if tooLong {
			continue
		}
		if bytes.HasPrefix(line, []byte(":")) {
			return Record{}, nil
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		var r Record
		if json.Unmarshal(data, &r) != nil || r.Type == "" {
			continue
		}
		r.Raw = bytes.Clone(data)
		return r, nil
	}
}

// Close ends the stream, and makes Next return.
func (s *Stream) Close() error { return s.body.Close() }
