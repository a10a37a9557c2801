package rig_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/line"
	"github.com/bilbycast/edge-agent/internal/rig"
)

var (
	lastYear  = time.Now().AddDate(-1, 0, 0)
	yesterday = time.Now().AddDate(0, 0, -1)
	nextYear  = time.Now().AddDate(1, 0, 0)
)

// authority is a CA.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "CA"}, NotBefore: lastYear.AddDate(-1, 0, 0), NotAfter: nextYear.AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Error(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Error(err)
	}
	return &authority{key, c}
}

// issue returns a certificate for any manager on loopback.
func (a *authority) issue(t *testing.T, from, to time.Time, ips ...net.IP) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "manager"}, NotBefore: from, NotAfter: to,
		IPAddresses: ips, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Error(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// withCA has the node verify the manager by a CA, in place of a fingerprint.
func withCA(w *world, c *rig.NodeConfig) {
	w.ca = newAuthority(w.t)
	c.CAFile = filepath.Join(w.t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.cert.Raw}), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.sound = line.Terminates(w.ca.issue(w.t, lastYear, nextYear, w.line.IP()), nil)
}

// withResolver gives the node a name for its manager, and a resolver of its own: it runs in
// a mount namespace with another resolv.conf.
func withResolver(w *world, c *rig.NodeConfig) {
	box.NeedRoot(w.t)
	at := w.line.IP().To4()
	r, err := line.NewResolver(net.IPv4(127, at[1], at[2], 1), at)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.Close)
	w.resolver = r
	conf := filepath.Join(w.t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+r.Addr.String()+"\noptions timeout:1 attempts:1\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	c.Wrap = []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, conf}
	_, port, _ := strings.Cut(w.line.Addr(), ":")
	c.URLs = []string{"wss://manager.test:" + port}
}

// database runs a statement in the manager's database, as a restore does. The manager runs.
func (w *world) database(statement string, args ...any) {
	db, err := sql.Open("sqlite", filepath.Join(w.Dir, "manager.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		w.t.Error(err)
		return
	}
	defer db.Close()
	if _, err := db.ExecContext(w.ctx, statement, args...); err != nil {
		w.t.Errorf("%s: %v", statement, err)
	}
}

// deleted removes the node from the manager.
func deleted(w *world) {
	w.database(`CREATE TABLE backup AS SELECT id, secret_hash, capabilities FROM nodes`)
	if err := w.Client.RemoveNode(w.ctx, w.id, "by mistake"); err != nil {
		w.t.Error(err)
	}
}

// restored brings the node back, as from a backup of the database.
func restored(w *world) {
	w.database(`UPDATE nodes SET removed_at = 0, secret_hash = (SELECT secret_hash FROM backup WHERE backup.id = nodes.id), capabilities = (SELECT capabilities FROM backup WHERE backup.id = nodes.id)`)
}
