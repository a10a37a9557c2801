//go:build !sim

package verify

import _ "embed"

// productionRoot is Sigstore's trust root; trust/README.md has its source.
//
//go:embed trust/trusted_root.json
var productionRoot []byte

// productionTUFRoot is the root of Sigstore's TUF repository, and
// productionTargets the version of targets.json that productionRoot is of.
//
//go:embed trust/root.json
var productionTUFRoot []byte

const productionTargets = 14

func loadAnchor() (anchor, error) { return anchor{productionTUFRoot, productionTargets}, nil }

// Simulation reports whether this build trusts a simulated Sigstore.
const Simulation = false

// VersionSuffix marks the version that a simulation build prints.
const VersionSuffix = ""

func load(signers []Signer) (Trust, error) {
	v, err := New(productionRoot, signers)
	if err != nil {
		return Trust{}, err
	}
	return Trust{Verifier: v}, nil
}
