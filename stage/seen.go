package stage

import "crypto/sha256"

// entrySet is what an archive has had so far: the kind of each name, by the first bytes of its
// SHA-256. A hundred thousand names may have 1,024 bytes each. Two names with the same first bytes
// count as one: the chance of it is 3e-10 for so many, and no node would then unpack the archive.
type entrySet map[[8]byte]kind

type kind byte

const (
	isDir kind = iota + 1
	isFile
	isLink
)

func nameKey(name string) [8]byte {
	sum := sha256.Sum256([]byte(name))
	return [8]byte(sum[:])
}

func (s entrySet) add(name string, k kind) { s[nameKey(name)] = k }

// kind returns what name is; 0: it is not there.
func (s entrySet) kind(name string) kind { return s[nameKey(name)] }
