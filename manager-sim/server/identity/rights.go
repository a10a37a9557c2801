package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// rights notifies running requests when the rights of a user or token changed.
type rights struct {
	mu      sync.Mutex
	changed chan struct{}
}

// next returns a channel that is closed at the next change.
func (r *rights) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

func (r *rights) announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// RightsChanged makes running requests check their rights again. Call it after a
// session, token, role, group or password has changed in the store.
func (s *Service) RightsChanged() { s.rights.announce() }

// current returns the identity as the store has it now, or store.ErrNotFound if its
// session, token or user has ended.
func (s *Service) current(ctx context.Context, i Identity) (Identity, error) {
	switch {
	case i.admin:
		return i, nil
	case i.tokenHash != "":
		return s.byToken(ctx, i.tokenHash)
	case i.session != "":
		return s.bySession(ctx, i.session)
	}
	u, err := s.store.User(ctx, i.Name)
	if err != nil {
		return Identity{}, err
	}
	now := FromUser(u)
	now.password = u.Hash
	return now, nil
}

// errRightsEnded is the cause of the context of WhileAllowed.
var errRightsEnded = errors.New("the access ended or changed")

// WhileAllowed returns a context that ends, within a moment, when a right ends with
// which i reads: its session, token, user, role, groups or password. The caller also
// calls check from time to time, which returns why the context has ended, or nil.
func (s *Service) WhileAllowed(ctx context.Context, i Identity) (_ context.Context, check func() error, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	began, err := s.current(ctx, i)
	if errors.Is(err, store.ErrNotFound) && i.session == "" && i.tokenHash == "" {
		// The program made up this identity: there is nothing to look up.
		return ctx, func() error { return nil }, func() { cancel(nil) }
	}
	check = func() error {
		now, err := s.current(ctx, i)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return nil // the store failed; the next check decides
		case err != nil, now.Role != i.Role, !slices.Equal(now.Groups, i.Groups), now.password != began.password:
			cancel(errRightsEnded)
			return errRightsEnded
		}
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		cancel(err)
	}
	stopTimer := func() {}
	if !i.until.IsZero() {
		t := time.AfterFunc(time.Until(i.until), func() { cancel(errRightsEnded) })
		stopTimer = func() { t.Stop() }
	}
	changed := s.rights.next() // before the first check, so that no change is missed
	check()
	go func() { // ends with ctx, which stop ends
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				changed = s.rights.next()
				check()
			}
		}
	}()
	return ctx, check, func() { stopTimer(); cancel(nil) }
}

// May reports whether the user or token with an Identity.Key has a role for a group now. Of
// "" it is not known, and May reports true. A record that cannot be read is store.ErrUnreadable: the
// right is neither there nor revoked.
func (s *Service) May(ctx context.Context, key string, least api.Role, groupID string) (bool, error) {
	if key == "" || key == store.ByManager {
		return true, nil
	}
	var now Identity
	if id, ok := strings.CutPrefix(key, store.ByToken("")); ok {
		t, err := s.store.APITokenByID(ctx, id)
		if errors.Is(err, store.ErrNotFound) || err == nil && !t.ExpiresAt.IsZero() && !time.Now().Before(t.ExpiresAt) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		now = Identity{Role: api.Role(t.Role), Groups: t.Groups}
	} else {
		name := key // of an earlier version of this program
		if words := strings.Fields(key); len(words) == 3 {
			name = words[1]
		}
		u, err := s.store.User(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if name != key && key != userKey(name, u.CreatedAt) { // another one has this name now
			return false, nil
		}
		now = FromUser(u)
	}
	return now.May(least) && now.In(groupID), nil
}
