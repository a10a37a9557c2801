// Package secret makes the manager's random secrets, and the digests by which it
// stores them. Passwords are not random, and are not stored this way.
package secret

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
)

// New returns 256 random bits as text: a token or a node's secret.
func New() string { return rand.Text() + rand.Text() }

// Hash returns the digest by which a secret is stored. Secrets are random, so a plain
// SHA-256 is enough.
func Hash(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

// Matches reports, in constant time, whether hash is the Hash of secret. An empty hash
// matches nothing.
func Matches(hash, secret string) bool {
	return hash != "" && subtle.ConstantTimeCompare([]byte(hash), []byte(Hash(secret))) == 1
}
