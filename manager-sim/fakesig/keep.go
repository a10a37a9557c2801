package fakesig

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// kept is the file of an instance, with keys in PKCS#8 and certificates in DER.
type kept struct {
	Start time.Time         `json:"start"`
	Keys  map[string][]byte `json:"keys"`
	Certs map[string][]byte `json:"certs"`
}

// Ensure returns the instance in dir. If there is none, it creates one that is valid
// from yesterday. Several processes can share an instance.
func Ensure(dir string) (*Instance, error) {
	path := filepath.Join(dir, "sigstore.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		i := New(time.Now().Add(-24 * time.Hour))
		return i, i.save(dir, path)
	}
	if err != nil {
		return nil, err
	}
	i, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return i, nil
}

func (i *Instance) parts() map[string]*ca {
	return map[string]*ca{"root": &i.root, "intermediate": &i.inter, "tsa-root": &i.tsaRoot, "tsa": &i.tsaLeaf}
}

func (i *Instance) save(dir, path string) error {
	k := kept{Start: i.start, Keys: map[string][]byte{}, Certs: map[string][]byte{}}
	for name, c := range i.parts() {
		k.Keys[name], k.Certs[name] = must(x509.MarshalPKCS8PrivateKey(c.key)), c.cert.Raw
	}
	k.Keys["ct"] = must(x509.MarshalPKCS8PrivateKey(i.ct))
	k.Keys["rekor1"] = must(x509.MarshalPKCS8PrivateKey(i.rekor1))
	k.Keys["rekor2"] = must(x509.MarshalPKCS8PrivateKey(i.rekor2))
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func parse(b []byte) (*Instance, error) {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, err
	}
	i := &Instance{start: k.Start}
	var err error
	for name, c := range i.parts() {
		if c.cert, err = x509.ParseCertificate(k.Certs[name]); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", name, err)
		}
		if c.key, err = key[*ecdsa.PrivateKey](k, name); err != nil {
			return nil, err
		}
	}
	if i.ct, err = key[*ecdsa.PrivateKey](k, "ct"); err != nil {
		return nil, err
	}
	if i.rekor1, err = key[*ecdsa.PrivateKey](k, "rekor1"); err != nil {
		return nil, err
	}
	i.rekor2, err = key[ed25519.PrivateKey](k, "rekor2")
	return i, err
}

func key[K any](k kept, name string) (K, error) {
	var zero K
	v, err := x509.ParsePKCS8PrivateKey(k.Keys[name])
	if err != nil {
		return zero, fmt.Errorf("key %s: %w", name, err)
	}
	typed, ok := v.(K)
	if !ok {
		return zero, fmt.Errorf("key %s is a %T", name, v)
	}
	return typed, nil
}
