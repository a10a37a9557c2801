package identity

import "testing"

// A name that does not exist is answered as slowly as a wrong password: its hash is as long,
// and as well formed, as one that is stored, and no password is right.
func TestAHashOfNoPassword(t *testing.T) {
	t.Parallel()
	stored := hashPassword("correct horse battery staple")
	if !checkPassword(stored, "correct horse battery staple") || checkPassword(stored, "correct horse battery stapler") {
		t.Error("a stored hash does not tell its password from another")
	}
	if len(noHash) != len(stored) {
		t.Errorf("noHash has %d bytes, a stored hash %d", len(noHash), len(stored))
	}
	if salt, key, ok := parts(noHash); !ok || len(salt) != argonSalt || len(key) != argonKey {
		t.Errorf("noHash is not checked: %q", noHash)
	}
	if checkPassword(noHash, "") {
		t.Error("noHash has an empty password")
	}
}
