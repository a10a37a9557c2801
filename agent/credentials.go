package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// credentials are what a registration returned. Only the auth message contains them.
type credentials struct {
	NodeID     string `json:"node_id"`
	NodeSecret string `json:"node_secret"`
}

const maxCredentials = 16 << 10

// loadCredentials returns the zero credentials if the node has none yet.
func loadCredentials(l state.Layout) (credentials, error) {
	return readCredentials(l.CredentialsFile())
}

// readCredentials is loadCredentials for a file, which may be a copy.
func readCredentials(path string) (credentials, error) {
	var c credentials
	b, err := fsutil.ReadFile(path, maxCredentials)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("credentials: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil || c.NodeID == "" || c.NodeSecret == "" {
		// The error of Unmarshal can quote the file.
		return credentials{}, fmt.Errorf("credentials: %s is damaged; remove it to register again with a new token", path)
	}
	return c, nil
}

// credentials returns those of this process's registration if they are not on disk
// yet, and otherwise those of the file.
func (a *Agent) credentials(ctx context.Context) (credentials, error) {
	if a.registered.NodeID != "" {
		if err := saveCredentials(ctx, a.c.Layout, a.registered); err != nil {
			a.log.Error("credentials.json cannot be written; trying again at the next connection", "error", err)
			return a.registered, nil
		}
		a.registered = credentials{}
	}
	c, err := loadCredentials(a.c.Layout)
	if c.NodeID != "" {
		return c, err
	}
	// A rollback may not have brought them back yet: the disk was full.
	if res, e := a.c.Layout.Read(); e == nil && a.c.Layout.CredentialsDue(res.State) {
		a.do(ctx, nil)
		if c, err := loadCredentials(a.c.Layout); c.NodeID != "" {
			return c, err
		}
		if kept, e := readCredentials(a.c.Layout.TrialCredentials(res.State.TrialID)); e == nil && kept.NodeID != "" {
			return kept, nil
		}
	}
	return c, err
}

// keepCredentials writes c. If that fails, this process uses c all the same and tries
// again to write it: it never registers twice.
func (a *Agent) keepCredentials(ctx context.Context, c credentials) error {
	a.registered = c
	_, err := a.credentials(ctx)
	return err
}

// reserveCredentials makes sure that saveCredentials will find the space it needs, by
// a file of that size, which saveCredentials removes first.
func reserveCredentials(ctx context.Context, l state.Layout) error {
	if st, err := os.Lstat(l.CredentialsReserve()); err == nil && st.Size() == maxReserve {
		return nil
	}
	return l.Locked(ctx, func() error {
		return l.Disk().WriteFile(l.CredentialsReserve(), make([]byte, maxReserve), 0o600)
	})
}

// maxReserve is more than credentials.json needs: an id and a secret of wire.MaxID
// bytes each, which JSON may encode in six times as many.
const maxReserve = 4 << 10

func saveCredentials(ctx context.Context, l state.Layout, c credentials) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return l.Locked(ctx, func() error {
		if err := l.Disk().Remove(l.CredentialsReserve()); err != nil {
			return err
		}
		return l.Disk().WriteFile(l.CredentialsFile(), append(b, '\n'), 0o600)
	})
}
