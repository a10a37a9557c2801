// Package selfsign keeps a self-signed TLS certificate in a directory. The first call
// creates it, and later calls return the same one, so that nodes can pin it. Only the
// owner can read the key. The package is for simulation: it does not renew the
// certificate.
package selfsign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Cert is a certificate, with the data by which a client can trust it.
type Cert struct {
	TLS         tls.Certificate
	PEM         []byte // the certificate, as a CA file
	Fingerprint string // SHA-256 of the certificate, lower-case hex
}

// Ensure returns the certificate in dir (cert.pem, key.pem), and creates it if it is
// missing. It is valid for localhost, 127.0.0.1 and ::1 for ten years.
func Ensure(dir string) (Cert, error) {
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, certFile, keyFile); err != nil {
			return Cert{}, fmt.Errorf("make certificate: %w", err)
		}
		certPEM, err = os.ReadFile(certFile)
	}
	if err != nil {
		return Cert{}, err
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return Cert{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return Cert{}, fmt.Errorf("%s: %w", certFile, err)
	}
	sum := sha256.Sum256(pair.Certificate[0])
	return Cert{TLS: pair, PEM: certPEM, Fingerprint: hex.EncodeToString(sum[:])}, nil
}

// create writes the key before the certificate, so that an existing certificate has
// its key.
func create(dir, certFile, keyFile string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "manager-sim"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
