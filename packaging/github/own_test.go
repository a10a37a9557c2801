package github_test

import (
	"os"
	"strings"
	"testing"
)

// own has the differences between this project's workflow and the one that publishers
// copy.
var own = [][2]string{
	{`# Builds, signs and publishes a release of any repository, in any language, when a tag v*
# is pushed. docs/publish.md of edge-agent explains it step by step.
#
# Copy it to .github/workflows/release.yml. The path is part of what nodes trust
# (verify.Signer.Workflow). Before you move it, publish a release from the old path
# that trusts the new one.
#
# Lines marked YOURS are yours to change. No third-party action runs here: git, Go and gh
# are on the runner, and the checksum database verifies the hashes of the other tools,
# which are Go modules.
`, `# Builds, signs and publishes edge-agent itself when a tag v* is pushed. It is
# packaging/github/release.yml, which publishers copy, with the programs of this
# checkout; a test keeps the two alike. Its path is part of what nodes trust.
`},
	{`      DEVICE_TYPE: edge # YOURS: as in the config.toml of your nodes
      EDGE_AGENT: latest # YOURS: better the version of edge-agent that you reviewed
      # YOURS: the channel`, `      DEVICE_TYPE: edge
      # The channel`},
	{`          CGO_ENABLED=0 go install "github.com/bilbycast/edge-agent/cmd/release-manifest@$EDGE_AGENT"
`, `          CGO_ENABLED=0 go install ./cmd/release-manifest
`},
	{`      # YOURS: fill dist/ARCH with the program that systemd starts, and with what
      # belongs to it. This builds edge-agent with this workflow as its only signer.
      # A daemon of your own that links package agent is built here instead; its
      # signers are in its source (docs/embed.md).
      - name: build
        run: |
          mkdir "$RUNNER_TEMP/edge-agent"
          checkout="$PWD"
          cd "$RUNNER_TEMP/edge-agent"
          go mod init release
          go get "github.com/bilbycast/edge-agent/cmd/edge-agent@$EDGE_AGENT"
          v=`, `      # With this workflow as the only signer.
      - name: build
        run: |
          v=`},
	{`git -C "$checkout" log -1`, `git log -1`},
	{`-o "$checkout/dist/${arch#*:}/edge-agent"`, `-o "dist/${arch#*:}/edge-agent"`},
	{`              github.com/bilbycast/edge-agent/cmd/edge-agent
          done`, `              ./cmd/edge-agent
          done`},
	{`      # YOURS: --commands says what your program understands (docs/publish.md). edge-agent
      # has both. Leave out what yours does not have.
`, ``},
	{`      # Only if the repository has packaging/install.sh, a copy of edge-agent's.
`, ``},
	{`          test -f packaging/install.sh || exit 0
`, ``},
}

// This project's workflow is the one that publishers copy, except for own.
func TestOurOwnWorkflow(t *testing.T) {
	t.Parallel()
	template, err := os.ReadFile("release.yml")
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../../.github/workflows/release.yml")
	if err != nil {
		t.Fatal(err)
	}
	want := string(template)
	for _, r := range own {
		if !strings.Contains(want, r[0]) {
			t.Errorf("release.yml has no longer: %s", r[0])
		}
		want = strings.Replace(want, r[0], r[1], 1)
	}
	if string(have) != want {
		t.Error(".github/workflows/release.yml is not release.yml with these differences")
	}
}
