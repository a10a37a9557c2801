package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// Hooks is which hooks of the service are due. The agent alone writes it.
type Hooks struct {
	// Saved is the upgrade for which the service saved its data last; nil: none, or the service
	// restored it.
	Saved *Saved `json:"saved,omitempty"`
	// Inherited is a later upgrade that began while the data of Saved were still to be restored:
	// its rollback restores the same data. nil: there is none.
	Inherited *Saved `json:"inherited,omitempty"`
	// Kept is the upgrade whose end the service is to be told; nil: none. It stays after a
	// rollback of To, since then Data may be older than From.
	Kept *Saved `json:"kept,omitempty"`
	// RestoreTries and KeptTries count the calls that began and did not end: the process ended
	// in them.
	RestoreTries int `json:"restore_tries,omitzero"`
	KeptTries    int `json:"kept_tries,omitzero"`
}

// Saved names an upgrade in Hooks.
type Saved struct {
	From release.Version `json:"from"`
	To   release.Version `json:"to"`
	// After is the trial of state.json at that time: in Hooks.Saved the one before, in
	// Hooks.Kept its own.
	After string `json:"after,omitzero"`
	// Data is the version in whose form the data are, and in Hooks.Saved the data that were
	// saved: Options.Kept of none of the later versions has succeeded. Zero: From. Earlier
	// agents write none.
	Data release.Version `json:"data,omitzero"`
}

// in returns s with data in the form of v.
func (s Saved) in(v release.Version) *Saved {
	if s.Data = v; v == s.From {
		s.Data = release.Version{}
	}
	return &s
}

// data returns the version in whose form the data are; from if s is nil.
func (s *Saved) data(from release.Version) release.Version {
	switch {
	case s == nil:
		return from
	case s.Data.IsZero():
		return s.From
	}
	return s.Data
}

const maxHooks = 4 << 10 // bytes

// ReadHooks returns which hooks are due: none if there is no file.
func (l Layout) ReadHooks() (Hooks, error) {
	b, err := fsutil.ReadFile(l.hooksFile(), maxHooks)
	if errors.Is(err, fs.ErrNotExist) {
		return Hooks{}, nil
	}
	var h Hooks
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		return Hooks{}, fmt.Errorf("%s: %w", l.hooksFile(), err)
	}
	return h, nil
}

// ChangeHooks changes durably which hooks are due. A file that is damaged is kept as .corrupt, and
// counts as nothing due.
func (l Layout) ChangeHooks(ctx context.Context, change func(*Hooks)) error {
	return l.Locked(ctx, func() error {
		h, err := l.ReadHooks()
		if err != nil {
			if err := l.Disk().Rename(l.hooksFile(), l.hooksFile()+corruptSuffix); err != nil {
				return err
			}
		}
		change(&h)
		b, err := json.Marshal(h)
		if err != nil {
			return err
		}
		return l.Disk().WriteFile(l.hooksFile(), append(b, '\n'), 0o600)
	})
}

// Save records that the service saved its data for a rollback from u.To.
func (h *Hooks) Save(u Saved) {
	h.Saved, h.Inherited, h.RestoreTries = u.in(h.Kept.data(u.From)), nil, 0
}

// Inherit records that a rollback from u.To restores the data that were saved before.
func (h *Hooks) Inherit(u Saved) { h.Inherited = u.in(h.saved().data(u.From)) }

// saved returns the record of the data that are saved, or nil.
func (h *Hooks) saved() *Saved {
	if h.Saved != nil {
		return h.Saved
	}
	return h.Inherited
}

// Restoring records, in the state s, that the service restores the data that it saved: from now
// on they may be in the form that they had then. tries are the calls that have not ended.
func (h *Hooks) Restoring(s State, tries int) {
	h.RestoreTries = tries
	saved := h.saved()
	if saved == nil {
		return
	}
	data := saved.data(saved.From)
	// After an operator's rollback the node may still return to the newer version.
	if _, byOperator := s.OperatorRollback(); byOperator || h.Kept != nil || data != s.Previous {
		h.Expect(s)
		h.Kept = h.Kept.in(data)
	}
}

// Restored records, in the state s, that the service restored its data.
func (h *Hooks) Restored(s State) {
	h.Restoring(s, 0)
	h.Saved, h.Inherited = nil, nil
}

// Expects reports whether Kept is that of the trial in s.
func (h *Hooks) Expects(s State) bool {
	return h.Kept != nil && h.Kept.From == s.Previous && h.Kept.To == s.Target && h.Kept.After == s.TrialID
}

// Expect makes Kept that of the trial in s. What was due before stays due, by Saved.Data.
func (h *Hooks) Expect(s State) {
	if !h.Expects(s) {
		u := Saved{From: s.Previous, To: s.Target, After: s.TrialID}
		h.Kept, h.KeptTries = u.in(h.Kept.data(u.From)), 0
	}
}

// Migrates reports whether Options.Kept of v, which is kept, is due, and the version in whose
// form the data are.
func (h *Hooks) Migrates(v release.Version) (from release.Version, due bool) {
	k := h.Kept
	data := k.data(v)
	switch {
	case k != nil && k.To == v && data == v: // the data of an operator's rollback, restored
		return k.From, true
	case k != nil && (k.To == v || k.From == v): // From: To was rolled back
		return data, data != v
	}
	return v, false
}

// Restores returns the version that was rolled back in s, if the service has saved data to restore
// for that.
func (h Hooks) Restores(s State) (rolledBack release.Version, ok bool) {
	from, byOperator := s.OperatorRollback()
	for _, saved := range []*Saved{h.Saved, h.Inherited} {
		if saved != nil && (byOperator && saved.To == from || s.Status == RolledBack && saved.To == s.Target && saved.After != s.TrialID) {
			return saved.To, true
		}
	}
	return release.Version{}, false
}

// OperatorRollback reports whether s is the trial of a version to which an operator rolled back,
// and from which version.
func (s State) OperatorRollback() (from release.Version, ok bool) {
	return s.Previous, s.Status == PendingHealth && s.byOperator()
}
