package wire

import (
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Bounds of the data that a node reports about itself. Longer data is shortened, so
// that the message is still processed. A message that exceeds a bound of its check
// method is refused.
const (
	MaxCapabilities = 32       // entries of Health.Capabilities and of Upgrade.Channels
	MaxWarnings     = 8        // entries of Health.Warnings
	MaxWarning      = 400      // bytes of each
	MaxHold         = 1 << 10  // bytes of Hold.Reason; every list of nodes contains it
	MaxJournalBytes = 32 << 10 // bytes of all lines of a journal; the oldest lines are dropped
	MaxStartsBytes  = 16 << 10 // bytes of all entries of failed_starts; the oldest are shortened
	maxBytes        = 1 << 50  // of Progress, so that a percentage cannot overflow
)

// clean makes texts of another program safe to store, to log and to show.
func clean(limit int, texts ...*string) {
	for _, s := range texts {
		*s = release.Foreign(*s, limit)
	}
}

// cleanSHA256 empties a text that is no SHA-256 in lower-case hex: a digest that cannot be
// one is not known.
func cleanSHA256(s *string) {
	if !release.IsSHA256(*s) {
		*s = ""
	}
}

// names returns list without empty names, with at most MaxCapabilities bounded ones.
func names(list []string) []string {
	return bounded(list, MaxCapabilities, release.MaxNameLen)
}

// bounded returns the first texts of list that are not empty, at most n, each made safe
// and with at most limit bytes.
func bounded(list []string, n, limit int) []string {
	out := make([]string, 0, min(len(list), n))
	for _, s := range list {
		if len(out) == n {
			break
		}
		if s = release.Foreign(s, limit); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func (a *Auth) clean() {
	clean(release.MaxVersionLen, &a.SoftwareVersion)
	clean(release.MaxNameLen, &a.DeviceType)
	cleanSHA256(&a.ManifestSHA256)
	if a.Features != nil {
		a.Features = names(a.Features)
	}
	if a.Actions != nil {
		a.Actions = bounded(a.Actions, MaxActions, MaxActionName)
	}
}

func (h *Health) clean() {
	if h.Status != StatusOK {
		h.Status = StatusDegraded
	}
	clean(release.MaxVersionLen, &h.Version)
	clean(MaxText/8, &h.UpgradeUnavailable) // every list of nodes contains it
	h.Capabilities = names(h.Capabilities)
	if h.Warnings != nil {
		h.Warnings = bounded(h.Warnings, MaxWarnings, MaxWarning)
	}
	clean(release.MaxNameLen, &h.Trial)
	cleanSHA256(&h.ManifestSHA256)
	if h.Hold != nil {
		clean(MaxHold, &h.Hold.Reason)
		h.Hold.Since, h.Hold.Until = sane(h.Hold.Since), sane(h.Hold.Until)
	}
	if u := h.Upgrade; u != nil {
		clean(release.MaxNameLen, &u.Status)
		clean(release.MaxVersionLen, &u.CurrentVersion, &u.PreviousVersion, &u.TargetVersion)
		u.Channels = names(u.Channels)
		if p := u.Progress; p != nil {
			clean(release.MaxNameLen, &p.Phase)
			p.BytesTotal = min(max(p.BytesTotal, 0), maxBytes)
			p.BytesDone = min(max(p.BytesDone, 0), maxBytes)
			if p.BytesTotal > 0 {
				p.BytesDone = min(p.BytesDone, p.BytesTotal)
			}
		}
	}
}

func (a *CommandAck) clean() {
	clean(MaxText, &a.Error)
	clean(release.MaxNameLen, (*string)(&a.ErrorCode))
	if isNull(a.Result) {
		a.Result = nil
	}
	if d := a.Data; d != nil {
		clean(release.MaxVersionLen, &d.FromVersion, &d.ToVersion)
		clean(release.MaxNameLen, &d.Status, &d.Channel, &d.Variant, &d.Arch)
	}
}

func (e *Event) clean() {
	e.Severity = e.Severity.Normal()
	clean(release.MaxNameLen, &e.Category)
	clean(MaxText, &e.Message)
	d := &e.Details
	clean(release.MaxNameLen, (*string)(&d.ErrorCode))
	clean(release.MaxVersionLen, &d.FromVersion, &d.ToVersion)
	clean(MaxID, &d.CommandID)
	clean(MaxText, &d.Reason)
	left := MaxStartsBytes
	for i := len(d.FailedStarts) - 1; i >= 0; i-- {
		clean(min(MaxText, left), &d.FailedStarts[i])
		left -= len(d.FailedStarts[i])
	}
	if t := d.Trial; t != nil {
		t.Contradictions = min(max(t.Contradictions, 0), MaxStarts)
		clean(MaxHold, &t.Link, &t.Probe, &t.ProbeBefore, &t.Check, &t.Dependency)
		t.NotCounted = t.NotCounted[max(0, len(t.NotCounted)-MaxStarts):]
		for i := range t.NotCounted {
			clean(MaxHold/4, &t.NotCounted[i])
		}
	}
	left = MaxJournalBytes
	for i := len(d.Journal) - 1; i >= 0; i-- {
		if left -= len(d.Journal[i]); left < 0 {
			d.Journal = d.Journal[i+1:]
			break
		}
		clean(MaxText, &d.Journal[i])
	}
}

// sane returns a sender's time in UTC, or the zero Time if no clock of a device can
// show it or JSON cannot represent it.
func sane(t time.Time) time.Time {
	t = t.UTC()
	if y := t.Year(); y < 1970 || y > 9998 {
		return time.Time{}
	}
	return t
}
