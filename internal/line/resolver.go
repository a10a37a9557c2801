package line

import (
	"net"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"
)

// Resolver answers questions for the address of any name, by UDP on port 53 of an address
// of loopback. Only root can open one.
type Resolver struct {
	Addr   net.IP // for resolv.conf
	decide atomic.Pointer[func(v4 bool) Lookup]
	conn   *net.UDPConn
	done   chan struct{}
}

// Lookup is how a resolver answers a question.
type Lookup int

// The answers.
const (
	Found    Lookup = iota
	NXDomain        // there is no such name
	Silent          // no answer
)

// NewResolver returns a resolver on ip for names that have the address to.
func NewResolver(ip, to net.IP) (*Resolver, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: 53})
	if err != nil {
		return nil, err
	}
	r := &Resolver{Addr: ip, conn: conn, done: make(chan struct{})}
	r.Set(func(bool) Lookup { return Found })
	go r.serve(to)
	return r, nil
}

// Set changes how questions are answered. v4 is true of a question for the address that
// the name has, and false of the one for IPv6, which a node asks as well.
func (r *Resolver) Set(decide func(v4 bool) Lookup) { r.decide.Store(&decide) }

// Close ends the resolver.
func (r *Resolver) Close() {
	r.conn.Close()
	<-r.done
}

func (r *Resolver) serve(to net.IP) {
	defer close(r.done)
	b := make([]byte, 1500)
	for {
		n, from, err := r.conn.ReadFromUDP(b)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		how := (*r.decide.Load())(q.Type == dnsmessage.TypeA)
		m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: true, RecursionAvailable: true}, Questions: m.Questions}
		switch {
		case how == Silent:
			continue
		case how == NXDomain:
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte(to.To4())}}}
		}
		if out, err := m.Pack(); err == nil {
			r.conn.WriteToUDP(out, from)
		}
	}
}
