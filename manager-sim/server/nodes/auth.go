package nodes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

const (
	// maxAuth bounds the first message of a session, in bytes: a stranger cannot make the
	// manager keep more.
	maxAuth = 16 << 10
	// refusalsBySource is how many wrong secrets and tokens of a source are answered one
	// by one within a minute. Beyond it, the source must wait. A right secret is
	// always accepted.
	refusalsBySource = 5
	// Pauses of nodes for which an operator has to act first.
	unknownPause = 30 * time.Second
	removedPause = 5 * time.Minute
)

// refusal is the reason why a node is not accepted. It wraps store.ErrDenied.
type refusal struct {
	reason string
	// pause, if set, means that the secret itself may be right, and when to try again: a
	// version on trial is not at fault.
	pause time.Duration
	// node is a node whose secret is wrong; "": another fault.
	node string
}

func (r *refusal) Error() string { return r.reason }
func (r *refusal) Unwrap() error { return store.ErrDenied }

// authenticate reads the auth message, and answers it if the node is accepted.
func (s *session) authenticate(ctx context.Context) (*wire.Auth, error) {
	s.socket.conn.SetReadLimit(maxAuth)
	s.socket.conn.SetReadDeadline(time.Now().Add(wire.AuthTimeout))
	_, b, err := s.socket.conn.ReadMessage()
	if err != nil {
		return nil, err
	}
	env, err := wire.Decode(b)
	if err != nil {
		return nil, &refusal{reason: fmt.Sprintf("not accepted: the first message is not auth: %v", err)}
	}
	auth, ok := env.Message.(*wire.Auth)
	if !ok {
		return nil, &refusal{reason: "not accepted: the first message is not auth"}
	}
	s.withdraws = slices.Contains(auth.Features, wire.FeatureWithdraw)
	// The node waits for the answer for wire.AuthTimeout.
	slow := time.AfterFunc(answerTime, func() { s.end(websocket.CloseTryAgainLater, awayText("not answering")) })
	defer slow.Stop()
	var answer wire.Message
	features := []string{wire.FeatureEventAck, wire.FeatureProbe}
	switch s.probe = auth.Probe; {
	case auth.Probe:
		answer, err = &wire.AuthOK{Features: features, Probe: true}, s.hub.probes.identify(ctx, s, auth)
	case auth.NodeID == "":
		answer, err = s.register(ctx, auth, features)
	default:
		answer, err = &wire.AuthOK{Features: features}, s.identify(ctx, auth)
	}
	if r := (*refusal)(nil); err != nil && !errors.As(err, &r) {
		return nil, &storeError{err}
	}
	if err != nil {
		return nil, err
	}
	if !s.hub.strangers.authenticated(s) { // ended meanwhile, to make room
		return nil, errors.New("the session ended while it authenticated")
	}
	s.socket.conn.SetReadLimit(wire.MaxMessage)
	return auth, s.socket.write(answer)
}

// register adds a node that has a registration token.
func (s *session) register(ctx context.Context, auth *wire.Auth, features []string) (wire.Message, error) {
	now, nodeSecret := time.Now(), secret.New()
	n := store.Node{ID: uuid.NewString(), DeviceType: auth.DeviceType, SecretHash: secret.Hash(nodeSecret),
		Version: auth.SoftwareVersion, RegisteredAt: now, LastSeen: now, Address: s.address, Features: auth.Features}
	err := s.hub.presence.register(ctx, s, secret.Hash(auth.RegistrationToken), n)
	if err == nil && len(auth.Actions) > 0 {
		err = s.hub.Store.RecordActions(ctx, n.ID, auth.ActionNames())
	}
	if errors.Is(err, store.ErrDenied) {
		return nil, &refusal{reason: "not accepted: the registration token is wrong"}
	}
	if err != nil {
		return nil, err
	}
	return &wire.RegisterAck{NodeID: n.ID, NodeSecret: nodeSecret, Features: features}, nil
}

// identify accepts a node that has credentials.
func (s *session) identify(ctx context.Context, auth *wire.Auth) error {
	err := checkCredentials(ctx, s.hub.Store, auth)
	if errors.Is(err, store.ErrNotFound) {
		return s.hub.Pending.refuse(s.source, auth)
	}
	if err != nil {
		return err
	}
	s.nodeID = auth.NodeID
	err = s.hub.presence.connect(ctx, s, auth, time.Now())
	if errors.Is(err, store.ErrDenied) {
		return removedNode(auth.NodeID)
	}
	if err == nil && auth.ManifestSHA256 != "" {
		err = s.hub.Store.RecordManifest(ctx, auth.NodeID, auth.SoftwareVersion, auth.ManifestSHA256)
	}
	if err == nil {
		err = s.hub.Store.RecordActions(ctx, auth.NodeID, auth.ActionNames())
	}
	return err
}

// checkCredentials returns nil if the credentials are those of a node, store.ErrNotFound
// for an unknown node, and otherwise a refusal or an error of the store.
func checkCredentials(ctx context.Context, st *store.Store, auth *wire.Auth) error {
	hash, err := st.SecretHash(ctx, auth.NodeID) // a node whose record cannot be read is not at fault
	switch {
	case err != nil:
		return err
	case hash == "":
		return removedNode(auth.NodeID)
	case !secret.Matches(hash, auth.NodeSecret):
		return &refusal{reason: "not accepted: the secret of node " + auth.NodeID + " is wrong", node: auth.NodeID}
	}
	return nil
}

func removedNode(id string) error {
	return &refusal{reason: fmt.Sprintf("node %s was removed from this manager; to use the device again, remove its credentials.json and set manager.registration_token", id), pause: removedPause}
}

// refuse sends a node the reason of its refusal, and when it may try again.
func (s *session) refuse(r *refusal) {
	code, text := websocket.CloseNormalClosure, ""
	if s.probe { // which is no attempt to authenticate, and counts for no limit
		s.socket.write(&wire.AuthError{Message: r.reason})
		s.socket.close(code, text)
		return
	}
	now := time.Now()
	s.hub.Metrics.AuthenticationRefused()
	if r.pause > 0 {
		code, text = wire.CloseTryLater, wire.TryLater("an administrator has to act first", r.pause)
	} else if wait := s.hub.refusals.count(now, s.source, r.node); wait > 0 {
		s.socket.close(wire.CloseTryLater, wire.TryLater("too many failed authentications from this address", wait))
		return
	}
	s.socket.write(&wire.AuthError{Message: r.reason})
	s.socket.close(code, text)
}

// refusals counts nodes that are not accepted.
type refusals struct{ attempts limit.Attempts }

// count counts a refusal, and returns how long the source has to wait; 0: the refusal
// is answered. A node with a wrong secret is answered once a minute, whatever its
// neighbours do: it must learn that its own credentials are at fault.
func (r *refusals) count(now time.Time, source, node string) time.Duration {
	first := false
	if node != "" {
		_, wait := r.attempts.Take(now, limit.Rule{Key: "node " + source + " " + node, PerMinute: 1})
		first = wait == 0
	}
	_, wait := r.attempts.Take(now, limit.Rule{Key: "source " + source, PerMinute: refusalsBySource})
	if first {
		return 0
	}
	return wait
}
