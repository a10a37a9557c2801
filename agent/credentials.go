package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/state"
)

// credentials are what a registration returned. They never leave the file but
// for the auth message.
type credentials struct {
	NodeID     string `json:"node_id"`
	NodeSecret string `json:"node_secret"`
}

const maxCredentials = 16 << 10

// loadCredentials returns the zero credentials when there are none yet.
func loadCredentials(l state.Layout) (credentials, error) {
	var c credentials
	path := l.CredentialsFile()
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

func saveCredentials(ctx context.Context, l state.Layout, c credentials) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return l.Locked(ctx, func() error { return l.Disk().WriteFile(l.CredentialsFile(), append(b, '\n'), 0o600) })
}
