package identity

import (
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
)

const (
	// useInterval is how often the use of a token is recorded.
	useInterval = time.Minute
	// maxTokenUses bounds the memory of tokenUses. A manager has few tokens.
	maxTokenUses = 30_000
)

// tokenUses remembers when the use of each token was recorded last.
type tokenUses struct {
	mu sync.Mutex
	at map[string]time.Time // by id
}

// due reports whether a use of the token at now has to be recorded.
func (u *tokenUses) due(t store.Token, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.at[t.ID]) < useInterval || now.Sub(t.LastUsedAt) < useInterval {
		return false
	}
	if u.at == nil || len(u.at) > maxTokenUses {
		u.at = make(map[string]time.Time)
	}
	u.at[t.ID] = now
	return true
}
