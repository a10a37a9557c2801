package verify

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
)

// Signer is a row of the allowlist: one workflow of one repository whose releases are
// trusted. Every field that is set must match; Issuer, Repository, Workflow and Ref
// must be set.
type Signer struct {
	// Issuer of the OIDC token for which the certificate was issued (Fulcio extension
	// .8), exact.
	Issuer string `json:"issuer"`
	// Repository is the URL of the source repository (.12), exact:
	// https://github.com/OWNER/REPO. Releases are fetched from it, too.
	Repository string `json:"repository"`
	// Workflow is the path of the workflow that was started, in Repository
	// (.18): .github/workflows/release.yml
	Workflow string `json:"workflow"`
	// Ref is the git ref that was built (.14). One star at its end stands for
	// one or more of [0-9A-Za-z._+-]: refs/tags/v*
	Ref string `json:"ref"`
	// RepositoryID and OwnerID are the numeric ids (.15, .17): a repository that was
	// deleted and created again under the same name has others.
	RepositoryID string `json:"repository_id,omitempty"`
	OwnerID      string `json:"owner_id,omitempty"`
	// Runner is the runner environment (.11); empty means "github-hosted".
	Runner string `json:"runner,omitempty"`
	// SignerWorkflow and SignerRef name the reusable workflow that signs, if that is not
	// Workflow itself: the URL of its file, and its ref, both exact. Then the
	// certificate's SAN and .9 name it, and all other claims name the caller.
	SignerWorkflow string `json:"signer_workflow,omitempty"`
	SignerRef      string `json:"signer_ref,omitempty"`
	// Legacy also accepts signatures in cosign 2's JSON, which has the log's signed promise
	// to include the entry, and no proof of inclusion.
	Legacy bool `json:"legacy,omitempty"`
}

// GitHubIssuer is the issuer of GitHub Actions' tokens.
const GitHubIssuer = "https://token.actions.githubusercontent.com"

// check refuses a row that matches more than its author can have meant.
func (s Signer) check() error {
	if s.Issuer == "" {
		return fmt.Errorf("issuer is missing")
	}
	for what, v := range map[string]string{"repository": s.Repository, "signer_workflow": s.SignerWorkflow} {
		if v == "" && what == "signer_workflow" {
			continue
		}
		u, err := url.Parse(v)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.HasSuffix(v, "/") || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return fmt.Errorf("%s %q is not an https URL without a slash at its end", what, v)
		}
	}
	if s.Workflow == "" || strings.HasPrefix(s.Workflow, "/") || strings.ContainsAny(s.Workflow, "@*") {
		return fmt.Errorf("workflow %q is not a path in the repository", s.Workflow)
	}
	stem := strings.TrimSuffix(s.Ref, "*")
	if !strings.HasPrefix(stem, "refs/") || strings.Contains(stem, "*") {
		return fmt.Errorf("ref %q does not start with refs/, or has a star before its end", s.Ref)
	}
	for what, id := range map[string]string{"repository_id": s.RepositoryID, "owner_id": s.OwnerID} {
		if strings.Trim(id, "0123456789") != "" {
			return fmt.Errorf("%s %q is not a number", what, id)
		}
	}
	if (s.SignerWorkflow == "") != (s.SignerRef == "") {
		return fmt.Errorf("signer_workflow and signer_ref go together")
	}
	return nil
}

// match compares every claim of the certificate. The error names the first one that
// differs, what the row allows, and what the certificate has.
func (s Signer) match(c *certificate.Summary) error {
	runner := s.Runner
	if runner == "" {
		runner = "github-hosted"
	}
	build := s.Repository + "/" + s.Workflow + "@" + c.SourceRepositoryRef
	san := build
	if s.SignerWorkflow != "" {
		san = s.SignerWorkflow + "@" + s.SignerRef
	}
	if !matchRef(s.Ref, c.SourceRepositoryRef) {
		return differs("source ref", s.Ref, c.SourceRepositoryRef)
	}
	for _, claim := range []struct{ what, want, got string }{
		{"issuer", s.Issuer, c.Issuer},
		{"source repository", s.Repository, c.SourceRepositoryURI},
		{"subject", san, c.SubjectAlternativeName},
		{"build signer", san, c.BuildSignerURI},
		{"build config", build, c.BuildConfigURI},
		{"runner environment", runner, c.RunnerEnvironment},
	} {
		if claim.want != claim.got {
			return differs(claim.what, claim.want, claim.got)
		}
	}
	if s.RepositoryID != "" && s.RepositoryID != c.SourceRepositoryIdentifier {
		return differs("source repository id", s.RepositoryID, c.SourceRepositoryIdentifier)
	}
	if s.OwnerID != "" && s.OwnerID != c.SourceRepositoryOwnerIdentifier {
		return differs("source repository owner id", s.OwnerID, c.SourceRepositoryOwnerIdentifier)
	}
	return nil
}

func differs(what, want, got string) error {
	if got == "" {
		return fmt.Errorf("the certificate has no %s; allowed is %s", what, want)
	}
	return fmt.Errorf("%s is %.200q; allowed is %s", what, got, want)
}

func matchRef(pattern, ref string) bool {
	stem, star := strings.CutSuffix(pattern, "*")
	if !star {
		return pattern == ref
	}
	rest, ok := strings.CutPrefix(ref, stem)
	if !ok || rest == "" {
		return false
	}
	for i := range len(rest) {
		c := rest[i]
		switch {
		case '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', c == '.', c == '_', c == '+', c == '-':
		default:
			return false
		}
	}
	return true
}
