package fakesig

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// longAgo is the expiry of all TUF metadata here. It is in the past, because the agent
// must not compare it with a clock.
var longAgo = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// tufKey returns one of a fixed set of keys: "a", "b", ...
func tufKey(name string) (*metadata.Key, signature.Signer) {
	seed := sha256.Sum256([]byte(name))
	private := ed25519.NewKeyFromSeed(seed[:])
	return must(metadata.KeyFromPublicKey(private.Public())), must(signature.LoadSigner(private, crypto.Hash(0)))
}

// TUFRoot returns the root.json of a TUF repository for trust roots. Each letter in
// keys, targetsKey and signers is a fixed key. Two of keys must sign.
func TUFRoot(version int64, keys, targetsKey, signers string) []byte {
	return TUFRootWith(version, keys, targetsKey, signers)
}

// TUFKey is a key of a TUF root that no letter stands for.
type TUFKey struct{ ID, Type, Scheme, Public string }

// TUFRootWith is TUFRoot with more keys for both roles. They sign nothing.
func TUFRootWith(version int64, keys, targetsKey, signers string, more ...TUFKey) []byte {
	m := metadata.Root(longAgo)
	m.Signed.Version = version
	add := func(names, role string, threshold int) {
		for _, n := range names {
			key, _ := tufKey(string(n))
			must(0, m.Signed.AddKey(key, role))
		}
		m.Signed.Roles[role].Threshold = threshold
	}
	add(keys, metadata.ROOT, min(2, len(keys)))
	add(targetsKey, metadata.TARGETS, 1)
	for _, k := range more {
		m.Signed.Keys[k.ID] = &metadata.Key{Type: k.Type, Scheme: k.Scheme, Value: metadata.KeyVal{PublicKey: k.Public}}
		for _, role := range []string{metadata.ROOT, metadata.TARGETS} {
			m.Signed.Roles[role].KeyIDs = append([]string{k.ID}, m.Signed.Roles[role].KeyIDs...)
		}
	}
	for _, n := range signers {
		_, s := tufKey(string(n))
		must(m.Sign(s))
	}
	return must(m.ToBytes(false))
}

// TUFTargets returns a targets.json for trustedRoot, signed with a key of TUFRoot.
func TUFTargets(version int64, trustedRoot []byte, signer string) []byte {
	return TUFTargetsWith(version, trustedRoot, signer, "sha256")
}

// TUFTargetsWith is TUFTargets with these digests. All but the sha256 are wrong.
func TUFTargetsWith(version int64, trustedRoot []byte, signer string, digests ...string) []byte {
	const name = "trusted_root.json"
	m := metadata.Targets(longAgo)
	m.Signed.Version = version
	target := must(metadata.TargetFile().FromBytes(name, trustedRoot, "sha256"))
	right := target.Hashes["sha256"]
	target.Hashes = metadata.Hashes{}
	for _, digest := range digests {
		if target.Hashes[digest] = []byte{1}; digest == "sha256" {
			target.Hashes[digest] = right
		}
	}
	m.Signed.Targets[name] = target
	_, s := tufKey(signer)
	must(m.Sign(s))
	return must(m.ToBytes(false))
}
