//go:build !sim

package verify_test

import (
	"fmt"

	"github.com/bilbycast/edge-agent/verify"
)

// A daemon names the workflows whose releases it accepts in its own source.
func ExampleLoad() {
	trust, err := verify.Load([]verify.Signer{{
		Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/player",
		Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*",
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range trust.Signers() {
		fmt.Println(s.Repository, s.Workflow)
	}
	// Output: https://github.com/acme/player .github/workflows/release.yml
}
