package verify

import "cmp"

// A build of edge-agent for another publisher sets these with the linker, instead
// of a fork:
//
//	go build -ldflags "-X github.com/bilbycast/edge-agent/verify.signerRepository=https://github.com/acme/player
//	  -X github.com/bilbycast/edge-agent/verify.signerWorkflow=.github/workflows/release.yml" ...
//
// Together they are the one row that replaces ours. They are part of the program:
// nothing at run time changes them.
var (
	signerRepository   string // Signer.Repository
	signerWorkflow     string
	signerRef          string // default refs/tags/v*
	signerRepositoryID string
	signerOwnerID      string
)

// DefaultSigners returns the rows of edge-agent itself, or the one that the build set in
// their place. An incomplete row is returned as it is, and Load refuses it. A sidecar
// passes its own rows to Load.
func DefaultSigners() []Signer {
	return signersOf(Signer{Repository: signerRepository, Workflow: signerWorkflow, Ref: signerRef, RepositoryID: signerRepositoryID, OwnerID: signerOwnerID})
}

// signersOf returns the row of a build, or our rows if the build sets none.
func signersOf(row Signer) []Signer {
	if row == (Signer{}) {
		return ourSigners()
	}
	row.Issuer, row.Ref = GitHubIssuer, cmp.Or(row.Ref, "refs/tags/v*")
	return []Signer{row}
}

// ourSigners are the rows of this project's own releases.
func ourSigners() []Signer {
	return []Signer{{
		Issuer:     GitHubIssuer,
		Repository: "https://github.com/Bilbycast/bilbycast-edge",
		Workflow:   ".github/workflows/nightly-release.yml",
		Ref:        "refs/tags/v*",
	}}
}
