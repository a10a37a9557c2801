package identity

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Parameters of argon2id, as RFC 9106 section 4 recommends them where 2 GiB are too
// much.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
	argonSalt    = 16
	argonKey     = 32
	argonPrefix  = "$argon2id$v=19$m=65536,t=3,p=4$"
)

// hashPassword returns the argon2id string by which a password is stored.
func hashPassword(password string) string {
	salt := random(argonSalt)
	return argonString(salt, argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey))
}

func checkPassword(hash, password string) bool {
	salt, key, ok := parts(hash)
	return ok && subtle.ConstantTimeCompare(argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey), key) == 1
}

func parts(hash string) (salt, key []byte, ok bool) {
	rest, ok1 := strings.CutPrefix(hash, argonPrefix)
	saltText, keyText, ok2 := strings.Cut(rest, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(saltText)
	key, err2 := base64.RawStdEncoding.DecodeString(keyText)
	return salt, key, ok1 && ok2 && err1 == nil && err2 == nil
}

// noHash is checked for a name that does not exist, so that the answer takes as long. No
// password has it: its key is random. To hash one instead would cost each start of the program
// 64 MiB and some tenths of a second.
var noHash = argonString(random(argonSalt), random(argonKey))

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

func argonString(salt, key []byte) string {
	return argonPrefix + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
}
