package server

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

const (
	// maxAuth bounds the first message of a session, in bytes. A stranger cannot
	// make the manager hold more.
	maxAuth = 16 << 10
	// refusalsBySource is how many wrong secrets and tokens a minute from a source
	// are answered one by one. Beyond it, the source is told to wait. A right secret
	// is accepted whatever its source did.
	refusalsBySource = 5
	// Pauses of nodes for which an operator has to do something first.
	unknownPause = 30 * time.Second
	removedPause = 5 * time.Minute
)

// refusal is why a node is not let in. It wraps store.ErrDenied.
type refusal struct {
	why string
	// pause, if set, says that the secret itself may be right, and when to try again:
	// a version on trial is not at fault.
	pause time.Duration
	// node is a node whose secret is wrong; "": another fault.
	node string
}

func (r *refusal) Error() string { return r.why }
func (r *refusal) Unwrap() error { return store.ErrDenied }

// authenticate reads the auth frame, and answers it if the node is let in.
func (ss *session) authenticate(ctx context.Context) (*wire.Auth, error) {
	ss.conn.SetReadLimit(maxAuth)
	ss.conn.SetReadDeadline(time.Now().Add(wire.AuthTimeout))
	_, b, err := ss.conn.ReadMessage()
	if err != nil {
		return nil, err
	}
	env, err := wire.Decode(b)
	if err != nil {
		return nil, &refusal{why: fmt.Sprintf("not accepted: the first message is not auth: %v", err)}
	}
	auth, ok := env.Message.(*wire.Auth)
	if !ok {
		return nil, &refusal{why: "not accepted: the first message is not auth"}
	}
	var answer wire.Message
	features := []string{wire.FeatureEventAck}
	if auth.NodeID == "" {
		answer, err = ss.register(ctx, auth, features)
	} else {
		answer, err = &wire.AuthOK{Features: features}, ss.identify(ctx, auth)
	}
	if err != nil {
		return nil, err
	}
	if !ss.s.sockets.authenticated(ss) { // ended meanwhile, to make room
		return nil, errors.New("the session ended while it authenticated")
	}
	ss.conn.SetReadLimit(wire.MaxMessage)
	return auth, ss.write(answer)
}

// register adds a node that has a registration token.
func (ss *session) register(ctx context.Context, auth *wire.Auth, features []string) (wire.Message, error) {
	now, secret := time.Now(), NewSecret()
	n := store.Node{ID: uuid.NewString(), DeviceType: auth.DeviceType, SecretHash: Hash(secret),
		Version: auth.SoftwareVersion, RegisteredAt: now, LastSeen: now, Address: ss.address}
	s := ss.s
	s.presence.Lock()
	defer s.presence.Unlock()
	err := s.Store.Register(ctx, Hash(auth.RegistrationToken), n)
	if errors.Is(err, store.ErrDenied) {
		return nil, &refusal{why: "not accepted: the registration token is wrong"}
	}
	if err != nil {
		return nil, err
	}
	ss.nodeID = n.ID
	s.enter(ss)
	return &wire.RegisterAck{NodeID: n.ID, NodeSecret: secret, Features: features}, nil
}

// identify lets in a node that has credentials.
func (ss *session) identify(ctx context.Context, auth *wire.Auth) error {
	n, err := ss.s.Store.Node(ctx, auth.NodeID)
	if errors.Is(err, store.ErrNotFound) {
		return ss.s.unknownNode(ss.source, auth)
	}
	if err != nil {
		return err
	}
	if n.SecretHash == "" {
		return removedNode(n.ID)
	}
	if subtle.ConstantTimeCompare([]byte(n.SecretHash), []byte(Hash(auth.NodeSecret))) != 1 {
		return &refusal{why: "not accepted: the secret of node " + n.ID + " is wrong", node: n.ID}
	}
	ss.nodeID = n.ID
	err = ss.s.came(ctx, ss, auth.SoftwareVersion, time.Now())
	if errors.Is(err, store.ErrDenied) {
		return removedNode(n.ID)
	}
	return err
}

func removedNode(id string) error {
	return &refusal{why: fmt.Sprintf("node %s was removed from this manager; to use the device again, remove its credentials.json and set manager.registration_token", id), pause: removedPause}
}

// refuse tells a node why it is not let in, and when it may try again.
func (ss *session) refuse(r *refusal) {
	s, now := ss.s, time.Now()
	s.metrics.refused.Inc()
	code, text := websocket.CloseNormalClosure, ""
	if r.pause > 0 {
		code, text = wire.CloseTryLater, wire.TryLater("an administrator has to act first", r.pause)
	} else {
		first := s.firstRefusal(now, ss.source, r.node)
		if _, wait := s.refusals.take(now, limit{"source " + ss.source, refusalsBySource}); wait > 0 && !first {
			ss.close(wire.CloseTryLater, wire.TryLater("too many failed authentications from this address", wait))
			return
		}
	}
	ss.write(&wire.AuthError{Message: r.why})
	ss.close(code, text)
}

// firstRefusal reports whether a node with a wrong secret was not told so within
// the last minute. It always hears that once: whatever its neighbours do, it must
// know that its own credentials are at fault.
func (s *Server) firstRefusal(now time.Time, source, node string) bool {
	if node == "" {
		return false
	}
	_, wait := s.refusals.take(now, limit{"node " + source + " " + node, 1})
	return wait == 0
}
