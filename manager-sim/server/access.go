package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// access tells those who go on reading that somebody's rights changed.
type access struct {
	mu      sync.Mutex
	changed chan struct{}
}

// watch returns a channel that is closed at the next change.
func (a *access) watch() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	return a.changed
}

func (a *access) change() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// present returns the identity as the store has it now; store.ErrNotFound: its
// session, token or user is gone.
func (s *Server) present(ctx context.Context, i Identity) (Identity, error) {
	switch {
	case i.fixed:
		return i, nil
	case i.tokenHash != "":
		return s.tokenIdentity(ctx, i.tokenHash)
	case i.session != "":
		return s.sessionIdentity(ctx, i.session)
	}
	u, err := s.Store.User(ctx, i.Name)
	if err != nil {
		return Identity{}, err
	}
	now := IdentityOf(u)
	now.password = u.Hash
	return now, nil
}

// errAccess says that an identity may no longer read what it began to read.
var errAccess = errors.New("the access ended or changed")

// holds returns a context that ends, within a moment, when the right ends with
// which i reads: its session, the token or the user, its role, its groups and
// its password. The caller calls check at least every checkEvery, too.
func (s *Server) holds(ctx context.Context, i Identity) (_ context.Context, check func() error, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	began, err := s.present(ctx, i)
	if errors.Is(err, store.ErrNotFound) && i.session == "" && i.tokenHash == "" {
		// An identity that the program itself made up: there is nothing to look up.
		return ctx, func() error { return nil }, func() { cancel(nil) }
	}
	check = func() error {
		now, err := s.present(ctx, i)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return nil // the store failed; the next check decides
		case err != nil, now.Role != i.Role, !slices.Equal(now.Groups, i.Groups), now.password != began.password:
			cancel(errAccess)
			return errAccess
		}
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		cancel(err)
	}
	end := func() {}
	if !i.until.IsZero() {
		t := time.AfterFunc(time.Until(i.until), func() { cancel(errAccess) })
		end = func() { t.Stop() }
	}
	changed := s.access.watch() // before the first check, so that no change is missed
	check()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				changed = s.access.watch()
				check()
			}
		}
	}()
	return ctx, check, func() { end(); cancel(nil) }
}
