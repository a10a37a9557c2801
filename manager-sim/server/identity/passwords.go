package identity

import (
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// Attempts a minute that may fail: of a name from one source, and of one source. A
// name alone has no limit, or strangers could lock a user out. Guessing from many
// sources is bounded because one password is checked at a time.
const (
	attemptsByPair   = 5
	attemptsBySource = 5
)

// Errors that a person is shown. ErrLocked and ErrBusy come as a *limit.TryLater.
var (
	ErrLocked = errors.New("too many failed attempts")
	ErrBusy   = errors.New("too many passwords are being checked")
	ErrWrong  = errors.New("the name or the password is wrong")
)

// passwords checks and hashes passwords, one at a time.
type passwords struct {
	store    *store.Store
	memory   uint32 // of a new hash, in KiB
	none     string // the hash of a name that does not exist
	attempts limit.Attempts
	queue    hashQueue
}

// admitSignIn counts an attempt to sign in, before anything is computed, and waits for
// its turn. takeBack makes the attempt not count; leave ends the turn.
func (p *passwords) admitSignIn(ctx context.Context, now time.Time, source, name string) (takeBack, leave func(), err error) {
	known := false
	if name != "" {
		if known, err = p.store.SignedInFrom(ctx, name, source, now); err != nil {
			return nil, nil, err
		}
	}
	// A source contains no space, so that no name makes the key of another pair.
	rules := []limit.Rule{{Key: "pair " + source + " " + name, PerMinute: attemptsByPair}}
	class, queue := own, source+" "+name
	if !known {
		rules = append(rules, limit.Rule{Key: "source " + source, PerMinute: attemptsBySource})
		class, queue = stranger, source
	}
	return p.admit(ctx, now, class, queue, name, rules...)
}

// admitUser is admitSignIn for a user who is signed in.
func (p *passwords) admitUser(ctx context.Context, now time.Time, name string) (takeBack, leave func(), err error) {
	return p.admit(ctx, now, own, "set "+name, "set "+name, limit.Rule{Key: "old password " + name, PerMinute: attemptsByPair})
}

func (p *passwords) admit(ctx context.Context, now time.Time, class int, source, name string, rules ...limit.Rule) (takeBack, leave func(), err error) {
	takeBack, wait := p.attempts.Take(now, rules...)
	if wait > 0 {
		return nil, nil, &limit.TryLater{Wait: wait, Reason: "too many failed attempts", Cause: ErrLocked}
	}
	if leave, err = p.queue.enter(ctx, class, source, name); err != nil {
		takeBack()
		return nil, nil, err
	}
	return takeBack, leave, nil
}

// check reports whether the password is the user's. It ends the turn with leave.
func (p *passwords) check(ctx context.Context, name, password string, leave func()) (bool, store.User, error) {
	defer leave()
	u, err := p.store.User(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, u, err
	}
	hash := u.Hash
	if err != nil {
		hash = p.none
	}
	return len(password) <= api.MaxPassword && checkPassword(hash, password) && err == nil, u, nil
}

// hash returns the hash of a new password that actor may set.
func (p *passwords) hash(ctx context.Context, actor, password string) (string, error) {
	if len([]rune(password)) < api.MinPassword || len(password) > api.MaxPassword {
		return "", &InvalidError{errors.New("the password must have 12 to 1024 characters")}
	}
	leave, err := p.queue.enter(ctx, own, "set "+actor, "set "+actor)
	if err != nil {
		return "", err
	}
	defer leave()
	return hashPassword(password, p.memory), nil
}
