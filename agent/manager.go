package agent

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/state"
	"github.com/gorilla/websocket"
)

// link is an open WebSocket to a manager.
type link struct {
	*websocket.Conn
	probes bool // the manager announces that it knows probes
}

// key returns the fingerprint of the manager's key; "" without TLS.
func (l link) key() string {
	if conn, ok := l.NetConn().(*tls.Conn); ok {
		if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
			return fingerprint(certs[0])
		}
	}
	return ""
}

// keyOf returns the SHA-256 of a certificate's key.
func keyOf(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// fingerprint returns keyOf as manager.key_fingerprint has it.
func fingerprint(cert *x509.Certificate) string {
	sum := keyOf(cert)
	return hex.EncodeToString(sum[:])
}

// LastManager is what an agent learned of its manager in its last session. The zero value
// is that of a node without one.
type LastManager struct {
	// Key is the fingerprint of the manager's key, as manager.key_fingerprint has it; ""
	// without TLS.
	Key string `json:"key,omitzero"`
	// Probe is whether the manager announced that it knows probes.
	Probe bool `json:"probe"`
}

const maxManager = 4 << 10

// ReadLastManager returns what the agent of an install root learned of its manager in its
// last session. With an error it is zero.
func ReadLastManager(l state.Layout) (LastManager, error) {
	b, err := fsutil.ReadFile(l.ManagerFile(), maxManager)
	if errors.Is(err, fs.ErrNotExist) {
		return LastManager{}, nil
	}
	if err != nil {
		return LastManager{}, err
	}
	var m LastManager
	if err := json.Unmarshal(b, &m); err != nil {
		return LastManager{}, fmt.Errorf("%s is damaged; the agent writes it again at its next session: %w", l.ManagerFile(), err)
	}
	return m, nil
}

// recordManager keeps what a session showed of the manager, in memory and, if it is new,
// on disk.
func (a *Agent) recordManager(ctx context.Context, m LastManager) {
	a.mu.Lock()
	a.manager = &m
	a.mu.Unlock()
	l := a.c.Layout
	if old, err := ReadLastManager(l); err == nil && old == m {
		return
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = l.Locked(ctx, func() error { return l.Disk().WriteFile(l.ManagerFile(), append(b, '\n'), 0o600) })
	}
	if err != nil {
		a.log.Warn().Err(err).Msg("what this session showed of the manager was not written; trying again at the next session")
	}
}

// lastManager returns what the last session showed of the manager: of this process, or of
// an earlier one.
func (a *Agent) lastManager() LastManager {
	a.mu.Lock()
	m := a.manager
	a.mu.Unlock()
	if m != nil {
		return *m
	}
	old, err := ReadLastManager(a.c.Layout)
	if err != nil {
		a.log.Warn().Err(err).Msg("what earlier sessions showed of the manager cannot be read")
	}
	return old
}
