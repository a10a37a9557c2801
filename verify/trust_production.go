//go:build !sim

package verify

// Simulation says whether this build believes a simulated Sigstore.
const Simulation = false

// VersionSuffix marks the version that a simulation build prints.
const VersionSuffix = ""

func load(signers []Signer) (Trust, error) {
	v, err := New(productionRoot, signers)
	if err != nil {
		return Trust{}, err
	}
	return Trust{Verifier: v, repository: signers[0].Repository}, nil
}
