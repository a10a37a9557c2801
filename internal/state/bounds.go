package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/bilbycast/edge-agent/release"
)

// Limits of the texts in state.json and in the outbox, in bytes. The texts come from
// other programs: the manager, hosts, health checks, the journal. JSON may write one
// of their bytes as two. Even then an entry stays below MaxEntry, and state.json below
// MaxState.
const (
	maxName       = 128     // a channel, an id
	maxText       = 1 << 10 // a message or reason
	maxCause      = 200     // why one start failed
	maxFound      = 600     // what one side of a round found
	maxNotCounted = 10      // starts that did not count, in a report
	maxLines      = 48      // of the journal
	maxLine       = 300
	// maxPendingReports limits the pending reports. One transition adds three at the most, and
	// they stay only while the outbox cannot be written.
	maxPendingReports = 12
)

// bounded returns e with every text cut to its limit.
func (e Entry) bounded() Entry {
	if e.Event != nil {
		ev := *e.Event
		ev.Code = release.Code(release.Foreign(string(ev.Code), maxName))
		ev.Message = release.Foreign(ev.Message, maxText)
		ev.Reason = release.Foreign(ev.Reason, maxText)
		ev.CommandID = release.Foreign(ev.CommandID, maxName)
		ev.Journal = boundedLines(ev.Journal)
		ev.FailedStarts = boundedStarts(ev.FailedStarts)
		ev.Trial = ev.Trial.bounded()
		e.Event = &ev
	}
	if e.Ack != nil {
		c := e.Ack.bounded()
		e.Ack = &c
	}
	return e
}

// boundedLines leaves out the middle of a long journal.
func boundedLines(lines []string) []string {
	if over := len(lines) - maxLines; over > 0 {
		const half = maxLines / 2
		lines = slices.Concat(lines[:half-1], []string{fmt.Sprintf("... %d lines left out", over+1)}, lines[len(lines)-half:])
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = release.Foreign(line, maxLine)
	}
	if lines == nil {
		return nil
	}
	return out
}

func boundedStarts(causes []string) []string {
	causes = slices.Clone(causes[:min(len(causes), MaxAttempts)])
	for i := range causes {
		causes[i] = release.Foreign(causes[i], maxCause)
	}
	return causes
}

func (f *Findings) bounded() *Findings {
	if f == nil {
		return nil
	}
	b := *f
	for _, text := range []*string{&b.Link, &b.Probe, &b.ProbeBefore, &b.Check, &b.Dependency} {
		*text = release.Foreign(*text, maxFound)
	}
	b.NotCounted = slices.Clone(b.NotCounted[max(0, len(b.NotCounted)-maxNotCounted):])
	for i := range b.NotCounted {
		b.NotCounted[i] = release.Foreign(b.NotCounted[i], maxCause)
	}
	return &b
}

func (c Command) bounded() Command {
	c.ID = release.Foreign(c.ID, maxName)
	c.Channel = release.Foreign(c.Channel, maxName)
	c.Status = release.Foreign(c.Status, maxName)
	c.Code = release.Code(release.Foreign(string(c.Code), maxName))
	c.Error = release.Foreign(c.Error, maxText)
	if c.Wait != nil {
		w := *c.Wait
		w.Reason = release.Foreign(w.Reason, maxText)
		c.Wait = &w
	}
	return c
}

// bounded returns s with every text and list cut to its limit. Earlier versions had no
// limits, so a state that grew too large can be written again.
func (s State) bounded() State {
	s.TrialID = release.Foreign(s.TrialID, maxName)
	s.CommandID = release.Foreign(s.CommandID, maxName)
	s.Channel = release.Foreign(s.Channel, maxName)
	s.Reason = release.Foreign(s.Reason, maxText)
	s.FailedStarts = boundedStarts(s.FailedStarts)
	s.Commands = forgetDone(slices.Clone(s.Commands))
	for i := range s.Commands {
		s.Commands[i] = s.Commands[i].bounded()
	}
	s.PendingReports = slices.Clone(s.PendingReports)
	if over := len(s.PendingReports) - maxPendingReports; over > 0 { // the oldest are dropped, as in the outbox
		s.PendingReports = s.PendingReports[over:]
	}
	found := false
	for i := len(s.PendingReports) - 1; i >= 0; i-- {
		s.PendingReports[i] = s.PendingReports[i].bounded()
		if e := s.PendingReports[i].Event; e != nil {
			e.Journal = nil // it is added in the outbox: see Outbox.Amend
			if found {
				e.Trial = nil // there is room for those of one trial
			}
			found = found || e.Trial != nil
		}
	}
	return s
}

// encode returns the bytes of state.json. It refuses what Decode would refuse, since a
// state.json that cannot be read loses everything in it.
func (s State) encode() ([]byte, error) {
	s = s.bounded()
	s.Schema = Schema
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	b, err := encodeJSON(s, "  ")
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if len(b) > MaxState { // a defect: the limits above prevent it
		return nil, fmt.Errorf("state: %d bytes, more than %d", len(b), MaxState)
	}
	return b, nil
}

// encodeJSON returns v as JSON, and a newline. It does not escape for HTML, which
// would write one byte as six.
func encodeJSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return b.Bytes(), err
}
