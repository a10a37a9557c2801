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
	// RestoredIn is the operator's rollback, by its trial, in which the service restored the data
	// of Saved: if that trial fails, the next rollback restores them again. "": none.
	RestoredIn string `json:"restored_in,omitzero"`
	// Inherited is a later upgrade that began while the data of Saved were still to be restored, or
	// while Saved.To was on trial: its rollback restores the same data. From the first call of
	// Options.RolledBack on it is Saved itself, so that the call stays due whatever the state says
	// next. nil: there is none.
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
	h.Saved, h.Inherited, h.RestoredIn, h.RestoreTries = u.in(h.Kept.data(u.From)), nil, "", 0
}

// Inherit records that a rollback from u.To restores the data that were saved before.
func (h *Hooks) Inherit(u Saved) {
	h.Inherited, h.RestoreTries = u.in(h.saved().data(u.From)), 0
}

// InheritOnTrial records, in the state s in which running is on trial, that a rollback from to
// restores what was saved before running: that is not proven, and such a rollback returns to the
// version before it. It returns false if nothing was saved for that.
func (h *Hooks) InheritOnTrial(s State, running, to release.Version) bool {
	if s.Status != PendingHealth || s.Target != running {
		return false
	}
	for _, saved := range []*Saved{h.Saved, h.Inherited} {
		if saved != nil && saved.To == running && saved.From == s.Previous && saved.After != s.TrialID {
			u := Saved{From: saved.From, To: to, After: s.TrialID}
			h.Saved = saved
			h.Inherited = u.in(saved.data(saved.From))
			return true
		}
	}
	return false
}

// InheritReplaced records, in the trial s of a version that another process swapped in, that a
// rollback from it restores what was saved before the version that it took the place of.
func (h *Hooks) InheritReplaced(s State) bool {
	if s.Status != PendingHealth || s.byOperator() || h.Inherited != nil && h.Inherited.To == s.Target {
		return false
	}
	for _, saved := range []*Saved{h.Inherited, h.Saved} {
		if saved != nil && saved.From == s.Previous && saved.To != s.Target && (saved == h.Inherited || saved.To == s.Replaces) {
			u := Saved{From: saved.From, To: s.Target, After: saved.After}
			h.Saved, h.Inherited = saved, u.in(saved.data(saved.From))
			return true
		}
	}
	return false
}

// Settles reports whether Settle changes something in the state s.
func (h *Hooks) Settles(s State) bool {
	return h.ended(s) || h.keptAnother(s) || h.obsolete(s)
}

// obsolete reports whether the version that saved its data is kept, and none of an upgrade waits for
// its rollback: it has written its data since. The upgrade was refused, or an operator returned from
// a version that saved nothing.
func (h *Hooks) obsolete(s State) bool {
	return h.RestoredIn == "" && h.Inherited == nil && h.Saved != nil && s.Status == Stable && h.Saved.From == s.Good
}

// ended reports whether the operator's rollback has ended in which the service restored its data.
func (h *Hooks) ended(s State) bool {
	return h.RestoredIn != "" && (s.TrialID != h.RestoredIn || s.Status != PendingHealth)
}

// keptAnother reports whether another version is kept than the one in which Inherited makes
// Options.RolledBack due: that is over, since the other one has written its data.
func (h *Hooks) keptAnother(s State) bool {
	return h.Inherited != nil && s.Status == Stable && s.Good != h.Inherited.From
}

// Settle drops, in the state s, the records of data that are not to be restored any more, because
// another version was kept since. Of an operator's rollback in which the service restored its data
// it notes how that ended: if the node returned to the newer version, another rollback restores them
// again; if the older version was kept, it has written its data since, and they are the good ones.
func (h *Hooks) Settle(s State) {
	if h.keptAnother(s) {
		if h.Inherited.To == s.Good { // an operator's rollback restores them
			h.Saved = h.Inherited
		}
		h.Inherited = nil
	}
	if h.obsolete(s) {
		h.Saved = nil
	}
	if !h.ended(s) {
		return
	}
	if saved := h.saved(); saved != nil && s.Good == saved.From {
		h.Saved, h.Inherited = nil, nil
	}
	h.RestoredIn = ""
}

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
	_, byOperator := s.OperatorRollback()
	if h.Inherited == nil && !byOperator {
		due := *saved
		h.Inherited = &due
	}
	// After an operator's rollback the node may still return to the newer version.
	if byOperator || h.Kept != nil || data != s.Previous {
		h.Expect(s)
		h.Kept = h.Kept.in(data)
	}
}

// Restored records that the service restored its data, for the rollback in the state s. now is the
// state by now: an upgrade that inherits the data may have begun, or wait for an operator.
func (h *Hooks) Restored(s, now State) {
	h.Restoring(s, 0)
	if _, byOperator := s.OperatorRollback(); byOperator {
		h.RestoredIn = s.TrialID
		return
	}
	later := h.Inherited
	h.Saved, h.Inherited = nil, nil
	if (now.Status == PendingHealth || now.Status == StagedManual) && later != nil && later.To == now.Target {
		h.Saved = later
	}
}

// SavedAs reports whether h and then say the same of the data that are saved.
func (h Hooks) SavedAs(then Hooks) bool {
	same := func(a, b *Saved) bool { return a == b || a != nil && b != nil && *a == *b }
	return same(h.Saved, then.Saved) && same(h.Inherited, then.Inherited) && h.Kept.data(release.Version{}) == then.Kept.data(release.Version{}) && h.RestoredIn == then.RestoredIn
}

// SameTrial reports whether s and then are in the same trial, or at rest after the same one.
func (s State) SameTrial(then State) bool {
	return s.Status == then.Status && s.TrialID == then.TrialID && s.Target == then.Target && s.Good == then.Good
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

// Restores returns the version that was rolled back in s, if running, to which the node returned,
// has saved data to restore for that.
func (h Hooks) Restores(s State, running release.Version) (rolledBack release.Version, ok bool) {
	if h.RestoredIn != "" {
		return release.Version{}, false
	}
	from, byOperator := s.OperatorRollback()
	for _, saved := range []*Saved{h.Saved, h.Inherited} {
		if saved != nil && saved.From == running && (byOperator && saved.To == from || s.Status == RolledBack && saved.To == s.Target && saved.After != s.TrialID) {
			return saved.To, true
		}
	}
	// The version that was rolled back took the place of one on trial, and inherited nothing.
	if saved := h.Saved; saved != nil && saved.From == running && s.Status == RolledBack && saved.To == s.Replaces {
		return s.Target, true
	}
	// Another swap, or one that was not completed, does not end what is due.
	if h.Inherited != nil && h.Inherited.From == running && s.Status != PendingHealth {
		return h.Inherited.To, true
	}
	return release.Version{}, false
}

// OperatorRollback reports whether s is the trial of a version to which an operator rolled back,
// and from which version.
func (s State) OperatorRollback() (from release.Version, ok bool) {
	return s.Previous, s.Status == PendingHealth && s.byOperator()
}
