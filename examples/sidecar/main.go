// Command sidecar is a complete service that its manager can upgrade. It has all the code that
// an author must write; what the service itself does begins at serve.
//
// Build it with -tags grpcnotrace,nethttpomithttp2 -ldflags "-s -w -funcalign=8": see docs/embed.md.
package main

import (
	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/daemon"
	"github.com/bilbycast/edge-agent/verify"
)

var version = "0.0.0-dev" // stamped: go build -ldflags "-X main.version=1.0.0"

// signers are the workflows whose releases the service accepts. Nothing at run time adds one.
var signers = []verify.Signer{{
	Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/player",
	Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*",
}}

func main() {
	daemon.Main(daemon.Options{
		Name:  "player",
		Agent: agent.Options{Version: version, Signers: signers, Serve: serve},
	})
}
