package identity

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Parameters of argon2id, as RFC 9106 section 4 recommends them where 2 GiB are too
// much.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB, of a manager that does not choose
	argonThreads = 4
	argonSalt    = 16
	argonKey     = 32
	// minMemory is the least that argon2 can use: RFC 9106 section 3.1.
	minMemory = 8 * argonThreads
)

// An argon2id string is argonBefore, the memory in KiB, argonAfter, the salt, $ and the key.
const argonBefore, argonAfter = "$argon2id$v=19$m=", ",t=3,p=4$"

// hashPassword returns the argon2id string by which a password is stored.
func hashPassword(password string, memory uint32) string {
	salt := random(argonSalt)
	return argonString(memory, salt, argon2.IDKey([]byte(password), salt, argonTime, memory, argonThreads, argonKey))
}

func checkPassword(hash, password string) bool {
	memory, salt, key, ok := parts(hash)
	return ok && subtle.ConstantTimeCompare(argon2.IDKey([]byte(password), salt, argonTime, memory, argonThreads, argonKey), key) == 1
}

// parts takes an argon2id string apart. ok is false if it is none that a manager stores, or
// would take more memory than those do.
func parts(hash string) (memory uint32, salt, key []byte, ok bool) {
	rest, ok1 := strings.CutPrefix(hash, argonBefore)
	memoryText, rest, ok2 := strings.Cut(rest, argonAfter)
	saltText, keyText, ok3 := strings.Cut(rest, "$")
	m, err0 := strconv.ParseUint(memoryText, 10, 32)
	salt, err1 := base64.RawStdEncoding.DecodeString(saltText)
	key, err2 := base64.RawStdEncoding.DecodeString(keyText)
	return uint32(m), salt, key, ok1 && ok2 && ok3 && err0 == nil && err1 == nil && err2 == nil && MayTake(uint32(m))
}

// MayTake reports whether the hash of a password may take so many KiB.
func MayTake(memory uint32) bool { return memory >= minMemory && memory <= argonMemory }

// noHash returns what is checked for a name that does not exist, so that the answer takes as
// long. No password has it: its key is random. To hash one instead would cost each start of the
// program some tenths of a second.
func noHash(memory uint32) string { return argonString(memory, random(argonSalt), random(argonKey)) }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

func argonString(memory uint32, salt, key []byte) string {
	text := base64.RawStdEncoding
	return fmt.Sprintf("%s%d%s%s$%s", argonBefore, memory, argonAfter, text.EncodeToString(salt), text.EncodeToString(key))
}
