package cert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// party is an authority, or a server with a certificate of one.
type party struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p party) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

// make returns a party that by signed; without by it is an authority that signed itself.
func newParty(t *testing.T, name string, begin, end time.Time, isCA bool, by *party) party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: begin, NotAfter: end, IsCA: isCA, BasicConstraintsValid: true}
	if isCA {
		c.KeyUsage = x509.KeyUsageCertSign
	} else if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return party{cert, key}
}

// handshake connects to a server that presents chain, for host, and returns the client's
// error.
func handshake(t *testing.T, conf *tls.Config, chain ...party) error {
	t.Helper()
	var server tls.Certificate
	for _, p := range chain {
		server.Certificate = append(server.Certificate, p.cert.Raw)
	}
	server.PrivateKey = chain[0].key
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{server}}).HandshakeContext(context.Background())
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return tls.Client(conn, conf).HandshakeContext(t.Context())
}

func day(year, month int) time.Time {
	return time.Date(year, time.Month(month), 1, 0, 0, 0, 0, time.UTC)
}

// Which certificates count, by which clock. The last certain time is that of a release, of
// January 2030.
func TestCertificatesByTheClock(t *testing.T) {
	t.Parallel()
	type span [2]time.Time
	signed := day(2030, 1)
	for name, tt := range map[string]struct {
		clock        int // its year
		root, server span
		host, asked  string // in the certificate, and what the client connects to
		want         string // in the error; "": the certificate counts
	}{
		"a right clock":                               {2031, span{day(2025, 1), day(2045, 1)}, span{day(2030, 6), day(2031, 6)}, "manager.example", "", ""},
		"a right clock, too young":                    {2031, span{day(2025, 1), day(2045, 1)}, span{day(2031, 6), day(2032, 6)}, "manager.example", "", "before the certificate begins"},
		"a right clock, too old":                      {2031, span{day(2025, 1), day(2045, 1)}, span{day(2029, 6), day(2030, 6)}, "manager.example", "", "if it is ahead, set it; otherwise renew"},
		"a right clock, an authority that is too old": {2031, span{day(2025, 1), day(2030, 6)}, span{day(2030, 2), day(2031, 6)}, "manager.example", "", "if it is ahead, set it; otherwise renew"},
		"1970, before any renewal":                    {1970, span{day(2025, 1), day(2045, 1)}, span{day(2029, 6), day(2030, 6)}, "manager.example", "", ""},
		"1970, the server renewed":                    {1970, span{day(2025, 1), day(2045, 1)}, span{day(2033, 6), day(2034, 6)}, "manager.example", "", ""},
		"1970, all renewed":                           {1970, span{day(2033, 1), day(2053, 1)}, span{day(2033, 6), day(2034, 6)}, "manager.example", "", ""},
		"1970, the server before its authority":       {1970, span{day(2034, 1), day(2053, 1)}, span{day(2033, 6), day(2034, 6)}, "manager.example", "", ""},
		"1970, an address":                            {1970, span{day(2033, 1), day(2053, 1)}, span{day(2033, 6), day(2034, 6)}, "127.0.0.1", "", ""},
		"1970, over before the release":               {1970, span{day(2025, 1), day(2045, 1)}, span{day(2028, 6), day(2029, 6)}, "manager.example", "", "clock is not set"},
		"1970, an authority that was over":            {1970, span{day(2025, 1), day(2029, 1)}, span{day(2028, 6), day(2034, 6)}, "manager.example", "", "clock is not set"},
		"1970, another host":                          {1970, span{day(2033, 1), day(2053, 1)}, span{day(2033, 6), day(2034, 6)}, "other.example", "manager.example", "valid for other.example"},
		"1970, another address":                       {1970, span{day(2033, 1), day(2053, 1)}, span{day(2033, 6), day(2034, 6)}, "127.0.0.2", "127.0.0.1", "127.0.0.1"},
		"1970, no name to compare":                    {1970, span{day(2033, 1), day(2053, 1)}, span{day(2033, 6), day(2034, 6)}, "127.0.0.1", "nobody", "no name"},
		"2029, not set since the release":             {2029, span{day(2033, 1), day(2053, 1)}, span{day(2033, 6), day(2034, 6)}, "manager.example", "", ""},
		"2099, far ahead":                             {2099, span{day(2025, 1), day(2045, 1)}, span{day(2030, 6), day(2031, 6)}, "manager.example", "", ""},
		"2099, over before the release":               {2099, span{day(2025, 1), day(2045, 1)}, span{day(2028, 6), day(2029, 6)}, "manager.example", "", "clock is ahead"},
		"2040, ahead":                                 {2040, span{day(2025, 1), day(2045, 1)}, span{day(2030, 6), day(2031, 6)}, "manager.example", "", ""},
		"2036, ahead, which nobody can know":          {2036, span{day(2025, 1), day(2045, 1)}, span{day(2030, 6), day(2031, 6)}, "manager.example", "", "if it is ahead, set it"},
	} {
		root := newParty(t, "root", tt.root[0], tt.root[1], true, nil)
		between := newParty(t, "between", tt.root[0], tt.root[1], true, &root)
		for _, chain := range [][]party{
			{newParty(t, tt.host, tt.server[0], tt.server[1], false, &root)},
			{newParty(t, tt.host, tt.server[0], tt.server[1], false, &between), between},
		} {
			if tt.asked == "" {
				tt.asked = tt.host
			}
			clock := NewClock(func() time.Time { return day(tt.clock, 1) }, signed, "release 1.0.0 was signed")
			cas, ok := FromPEM(root.pem())
			if !ok {
				t.Fatal("no authority")
			}
			conf := &tls.Config{ServerName: tt.asked}
			if tt.asked == "nobody" {
				conf.ServerName = tt.host
			}
			cas.Client(conf, clock, func() string { return strings.TrimPrefix(tt.asked, "nobody") })
			err := handshake(t, conf, chain...)
			if text := fmt.Sprint(err, ": ", clock.Explain(err)); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(text, tt.want) {
				t.Errorf("%s, %d certificates: %s; want %q", name, len(chain), text, tt.want)
			}
			// The authority is what makes any of them count.
			other, _ := FromPEM(newParty(t, "root", tt.root[0], tt.root[1], true, nil).pem())
			conf = &tls.Config{ServerName: tt.asked}
			other.Client(conf, clock, func() string { return tt.asked })
			if err := handshake(t, conf, chain...); err == nil {
				t.Errorf("%s: a server that no authority knows is trusted", name)
			}
		}
	}
}

// Only what is compiled in or signed moves the certain time, and only forward.
func TestTheCertainTime(t *testing.T) {
	t.Parallel()
	at := func(now, signed time.Time) Clock {
		return NewClock(func() time.Time { return now }, signed, "release 1.0.0 was signed")
	}
	for _, tt := range []struct {
		now, signed, certain time.Time
		problem              string
	}{
		{day(2027, 1), time.Time{}, written, ""},
		{day(2027, 1), day(2020, 1), written, ""},
		{day(2027, 1), day(2026, 12), day(2026, 12), ""},
		{day(2027, 1), day(2027, 1).Add(time.Minute), day(2027, 1).Add(time.Minute), ""},
		{day(2027, 1), day(2027, 1).Add(2 * time.Hour), day(2027, 1).Add(2 * time.Hour), "clock is not set"},
		{day(1970, 1), time.Time{}, written, "clock is not set: it shows 1970-01-01T00:00:00Z, and this program was built at 2026-11-01"},
		{day(2027, 1), day(2028, 1), day(2028, 1), "clock is not set: it shows 2027-01-01T00:00:00Z, and release 1.0.0 was signed at 2028-01-01"},
		{time.Date(2036, 2, 7, 6, 28, 16, 0, time.UTC), time.Time{}, written, "clock is ahead: it shows 2036-02-07T06:28:16Z"},
		{time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC), day(2029, 1), day(2029, 1), "clock is ahead"},
		{day(2034, 1), time.Time{}, written, ""},
		{time.Date(2036, 2, 7, 6, 28, 16, 0, time.UTC), day(2032, 6), day(2032, 6), "clock is ahead"},
		{time.Date(2038, 1, 20, 0, 0, 0, 0, time.UTC), day(2035, 6), day(2035, 6), "clock is ahead"},
		{time.Date(2037, 6, 1, 0, 0, 0, 0, time.UTC), day(2036, 1), day(2036, 1), ""}, // near a time at which a counter ends
		{time.Date(2038, 1, 18, 0, 0, 0, 0, time.UTC), day(2036, 3), day(2036, 3), ""},
		{day(2106, 2), day(2028, 1), day(2028, 1), "clock is ahead: it shows 2106-02-01T00:00:00Z"},
	} {
		c := at(tt.now, tt.signed)
		if !c.Certain.Equal(tt.certain) || (c.Problem() == "") != (tt.problem == "") || !strings.Contains(c.Problem(), tt.problem) {
			t.Errorf("%v, signed %v: certain %v, %q", tt.now, tt.signed, c.Certain, c.Problem())
		}
	}
	if why := at(day(1970, 1), time.Time{}).Explain(net.ErrClosed); why != "" {
		t.Errorf("an error that is not about certificates: %q", why)
	}
}

// The build sets the date of the program. What is no date, or an earlier one, changes nothing.
func TestTheDateOfTheBuild(t *testing.T) { // not parallel: it sets a variable
	defer func() { built = "" }()
	for set, want := range map[string]time.Time{"": written, "x": written, "0": written, "1893456000": time.Unix(1893456000, 0)} {
		built = set
		c := NewClock(func() time.Time { return day(2027, 1) }, time.Time{}, "")
		if !c.Certain.Equal(want) || (c.Problem() == "") != want.Equal(written) {
			t.Errorf("%q: %v, %q", set, c.Certain, c.Problem())
		}
		if c := NewClock(nil, want.Add(time.Hour), "signed"); !c.Certain.Equal(want.Add(time.Hour)) || c.Proof != "signed" {
			t.Errorf("%q, signed later: %v", set, c.Certain)
		}
	}
}

// The offer without the post-quantum key share fits into one packet, and is still TLS 1.3.
func TestTheClassicalOffer(t *testing.T) {
	t.Parallel()
	size := func(conf *tls.Config) int {
		client, server := net.Pipe()
		defer server.Close()
		go func() { defer client.Close(); tls.Client(client, conf).HandshakeContext(context.Background()) }()
		b := make([]byte, 64<<10)
		n, err := server.Read(b)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	full, classical := size(&tls.Config{ServerName: "manager.example"}), size(&tls.Config{ServerName: "manager.example", CurvePreferences: Classical()})
	if classical > 600 || full < 1300 {
		t.Errorf("a ClientHello of %d bytes, and %d without the key share", full, classical)
	}
	root := newParty(t, "root", day(2020, 1), day(2060, 1), true, nil)
	cas, _ := FromPEM(root.pem())
	conf := &tls.Config{ServerName: "manager.example", MinVersion: tls.VersionTLS13, CurvePreferences: Classical()}
	cas.Client(conf, NewClock(func() time.Time { return day(2030, 1) }, time.Time{}, ""), nil)
	if err := handshake(t, conf, newParty(t, "manager.example", day(2020, 1), day(2060, 1), false, &root)); err != nil {
		t.Error(err)
	}
}
