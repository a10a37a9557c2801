package cert

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"
)

// Classical are the key shares that every server knows. With them the first message of a
// client has some 250 bytes; with a post-quantum one it has more than a packet.
func Classical() []tls.CurveID {
	return []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

// ClassicalFor is how long a peer gets only Classical after it did not answer more.
const ClassicalFor = 24 * time.Hour

// Unanswered reports whether err of a TLS handshake means that the server did not answer:
// something between may have swallowed the client's first message. The caller knows whether
// it ended the handshake itself.
func Unanswered(err error) bool {
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return true
	}
	for _, end := range []error{io.EOF, syscall.ECONNRESET, net.ErrClosed, context.Canceled} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// Watch returns a context for one connection, and a function that reports whether its TLS
// handshake was not answered, or is not until now.
func Watch(ctx context.Context) (context.Context, func() bool) {
	var unanswered atomic.Bool
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeStart: func() { unanswered.Store(true) },
		TLSHandshakeDone:  func(_ tls.ConnectionState, err error) { unanswered.Store(err != nil && Unanswered(err)) },
	}), unanswered.Load
}
