package verify

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
)

// A build can set the row of another publisher, which then is the only one. One
// that is incomplete or malformed trusts nobody.
func TestSignersOf(t *testing.T) {
	t.Parallel()
	root, err := fakesig.New(time.Now()).TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	const player = "https://github.com/acme/player"
	for _, tt := range []struct {
		row  Signer
		ref  string
		want string // error of New
	}{
		{Signer{Repository: player, Workflow: "a.yml"}, "refs/tags/v*", ""},
		{Signer{Repository: player, Workflow: "a.yml", Ref: "refs/heads/main", RepositoryID: "1", OwnerID: "2"}, "refs/heads/main", ""},
		{Signer{Repository: player}, "refs/tags/v*", `workflow "" is not a path`},
		{Signer{Workflow: "a.yml"}, "refs/tags/v*", `repository "" is not an https URL`},
		{Signer{Ref: "refs/tags/v*"}, "refs/tags/v*", `repository "" is not an https URL`},
		{Signer{OwnerID: "7"}, "refs/tags/v*", `repository "" is not an https URL`},
		{Signer{Repository: "acme/player", Workflow: "a.yml"}, "refs/tags/v*", `repository "acme/player" is not an https URL`},
		{Signer{Repository: player, Workflow: "a.yml", RepositoryID: "seven"}, "refs/tags/v*", `repository_id "seven" is not a number`},
		{Signer{Repository: player, Workflow: "a.yml", Ref: "*"}, "*", `ref "*"`},
	} {
		rows := signersOf(tt.row)
		if len(rows) != 1 || rows[0].Ref != tt.ref || rows[0].Repository != tt.row.Repository || rows[0].Issuer != GitHubIssuer {
			t.Errorf("%+v: %+v", tt.row, rows)
		}
		if _, err := New(root, rows); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.row, err, tt.want)
		}
	}
	if !slices.Equal(signersOf(Signer{}), ourSigners()) || !slices.Equal(DefaultSigners(), ourSigners()) {
		t.Error("without a row, the rows are not ours")
	}
}

// The linker's names are those that docs/publish.md and the workflow use.
func TestSignerOfTheBuild(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds a program")
	}
	const v = "-X github.com/bilbycast/edge-agent/verify.signer"
	flags := v + "Repository=https://github.com/acme/player " + v + "Workflow=.github/workflows/publish.yml " + v + "Ref=refs/tags/w* " + v + "RepositoryID=1 " + v + "OwnerID=2"
	program := filepath.Join(t.TempDir(), "edge-agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", flags, "-o", program, "../cmd/edge-agent").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), program, "trust", "show", "--json").Output()
	text := strings.Join(strings.Fields(string(out)), "")
	if want := `"signers":[{"issuer":"` + GitHubIssuer + `","repository":"https://github.com/acme/player","workflow":".github/workflows/publish.yml","ref":"refs/tags/w*","repository_id":"1","owner_id":"2"}]`; err != nil || !strings.Contains(text, want) {
		t.Errorf("%v %s, want %s", err, text, want)
	}
}
