// Package cert decides which certificates a TLS client of this device trusts: those of the
// manager, of the release host, and of https proxies.
//
// The authorities of the system are those that its CA store has now: a store that is
// renewed while the agent runs counts at the next connection (System).
//
// A device without a clock, or with one that is certainly wrong, judges no certificate by
// it (Clock). Then no certificate is too young, and one is too old only if it ended before
// the latest time that is certain: a time that is compiled in or signed. No manager and no
// local clock moves that time, so that a clock that was ahead once locks nobody out.
//
// Some middleboxes swallow the long first message of a client that offers a post-quantum
// key share. Unanswered finds that, and Classical is the offer without it.
//
// Releases are verified without all of this: see package verify.
package cert

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"
)

// CAs are the authorities that a client trusts.
type CAs struct {
	pool *x509.CertPool // nil: those that Go finds
	text func() []byte  // the same in PEM
}

// FromPEM returns the authorities in text. ok is false if it has none.
func FromPEM(text []byte) (_ *CAs, ok bool) {
	pool := x509.NewCertPool()
	ok = pool.AppendCertsFromPEM(text)
	return &CAs{pool, func() []byte { return text }}, ok
}

// With returns the authorities of c and those in text. ok is false if text has none.
func (c *CAs) With(text []byte) (_ *CAs, ok bool) {
	pool := x509.NewCertPool()
	if c.pool != nil {
		pool = c.pool.Clone()
	}
	ok = pool.AppendCertsFromPEM(text)
	return &CAs{pool, func() []byte { return append(c.text(), text...) }}, ok
}

// Equal reports whether both are the same authorities, as far as that is known without a
// comparison of each.
func (c *CAs) Equal(o *CAs) bool { return o != nil && c.pool == o.pool }

// Client makes conf trust the certificates of these authorities, by this clock. name returns
// the host that the client connects to; it is asked if that is an IP address.
func (c *CAs) Client(conf *tls.Config, clock Clock, name func() string) {
	conf.RootCAs = c.pool
	conf.Time = clock.now
	if clock.Problem() == "" {
		return
	}
	conf.InsecureSkipVerify = true // VerifyConnection verifies, without the clock
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		host := cs.ServerName // "" for an IP address
		if host == "" {
			host = name()
		}
		if err := c.verify(cs.PeerCertificates, host, clock); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
		}
		return nil
	}
}

// verify verifies a chain as crypto/tls does, but only by the time that is certain.
func (c *CAs) verify(chain []*x509.Certificate, host string, clock Clock) error {
	if len(chain) == 0 || host == "" {
		return errors.New("the server has no certificate, or no name")
	}
	opts := x509.VerifyOptions{DNSName: host, CurrentTime: clock.Certain, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(dateless(cert))
	}
	if c.pool != nil {
		opts.Roots = x509.NewCertPool()
		for block, rest := pem.Decode(c.text()); block != nil; block, rest = pem.Decode(rest) {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
				opts.Roots.AddCert(dateless(cert))
			}
		}
	}
	_, err := dateless(chain[0]).Verify(opts)
	return err
}

// dateless returns cert as one that was always valid until it ends. Its signature is not
// of these fields but of the bytes.
func dateless(cert *x509.Certificate) *x509.Certificate {
	c := *cert
	c.NotBefore = time.Time{}
	return &c
}
