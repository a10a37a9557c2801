package verify

// DefaultSigners are the rows of edge-agent itself. This is the file that a
// fork changes; a sidecar passes its own rows to Load.
func DefaultSigners() []Signer {
	return []Signer{{
		Issuer:     GitHubIssuer,
		Repository: "https://github.com/Bilbycast/bilbycast-edge",
		Workflow:   ".github/workflows/nightly-release.yml",
		Ref:        "refs/tags/v*",
	}}
}
