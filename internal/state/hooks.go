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
	// Kept is the upgrade whose end the service is to be told; nil: none.
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
