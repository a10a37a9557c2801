package identity

import (
	"strings"
	"testing"
)

// The hash of a name that does not exist takes as long to check as one that is stored, and no
// password is right.
func TestAHashOfNoPassword(t *testing.T) {
	t.Parallel()
	stored, none := hashPassword("correct horse battery staple", argonMemory), noHash(argonMemory)
	if !checkPassword(stored, "correct horse battery staple") || checkPassword(stored, "correct horse battery stapler") {
		t.Error("a stored hash does not tell its password from another")
	}
	if len(none) != len(stored) {
		t.Errorf("it has %d bytes, a stored one %d", len(none), len(stored))
	}
	if memory, salt, key, ok := parts(none); !ok || memory != argonMemory || len(salt) != argonSalt || len(key) != argonKey {
		t.Errorf("it is not checked: %q", none)
	}
	if checkPassword(none, "") {
		t.Error("the empty password is right")
	}
}

// A stored hash says how much memory it takes, within bounds: the one of an earlier manager is
// checked, and one that somebody wrote into the database takes no more than others.
func TestHashesThatAreChecked(t *testing.T) {
	t.Parallel()
	const earlier = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$"
	if _, _, _, ok := parts(earlier + strings.Repeat("A", 43)); !ok {
		t.Error("the hash of an earlier manager is refused")
	}
	for name, hash := range map[string]string{
		"empty":             "",
		"too much memory":   strings.Replace(earlier, "65536", "65537", 1) + strings.Repeat("A", 43),
		"too little memory": strings.Replace(earlier, "65536", "31", 1) + strings.Repeat("A", 43),
		"no memory":         strings.Replace(earlier, "65536", "", 1) + strings.Repeat("A", 43),
		"more rounds":       strings.Replace(earlier, "t=3", "t=9", 1) + strings.Repeat("A", 43),
		"argon2i":           strings.Replace(earlier, "argon2id", "argon2i", 1) + strings.Repeat("A", 43),
		"another alphabet":  earlier + strings.Repeat("!", 43),
		"no key":            strings.TrimSuffix(earlier, "$"),
	} {
		if _, _, _, ok := parts(hash); ok {
			t.Errorf("%s: %q is checked", name, hash)
		}
	}
}
