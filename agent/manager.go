package agent

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"

	"github.com/bilbycast/edge-agent/internal/state"
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

// recordManager keeps what a session showed of the manager, if it is new.
func (a *Agent) recordManager(ctx context.Context, m state.Manager) {
	l := a.c.Layout
	if old, err := l.ReadManager(); err == nil && old == m {
		return
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = l.Locked(ctx, func() error { return l.Disk().WriteFile(l.ManagerFile(), append(b, '\n'), 0o600) })
	}
	if err != nil {
		a.log.Warn("what this session showed of the manager was not written; trying again at the next session", "error", err)
	}
}

// keepTrialCredentials keeps credentials that were registered during a trial, and that the
// manager of the session before it accepted: a rollback must not bring older ones back.
// Another manager proves nothing: the version on trial may accept anybody.
func (a *Agent) keepTrialCredentials(ctx context.Context, key string) {
	l := a.c.Layout
	res, err := l.Read()
	swap, ok := l.ReadSwap(res.State)
	if err != nil || !ok || swap.ManagerKey != key {
		return
	}
	if err := l.Locked(ctx, func() error { return l.KeepCredentials(res.State) }); err != nil {
		a.log.Warn("the copy of credentials.json that a rollback brings back was not renewed", "error", err)
	}
}
