// Package verify turns bytes from a release host into a Release: the proof that an
// allowed workflow signed this manifest, that a transparency log has the signature,
// and when it was made. No other package can make a Release, and nothing is
// installed without one.
//
// The allowed signers are compiled in (DefaultSigners, or the rows that a sidecar
// passes in code), and so is Sigstore's trust root. No flag, environment variable,
// configuration key or command of the manager adds to them. A newer trust root is
// accepted only with the proof of Sigstore's own TUF keys (Renew), from any source.
// Only a simulation build (build tag "sim") reads both from a directory; its
// version says so.
//
// The time of a signature is what a log or a timestamp authority signed, never the
// local clock: a device whose clock is at 1970 gets the same result.
//
// The threat model: the manager, the release host, the network, and files on a stick
// are hostile. They can delay an upgrade, and offer a genuine release. A fork,
// another workflow, a reusable workflow that another caller runs, a stolen
// certificate without a log entry, and a manifest replayed under another version are
// refused, each because a claim differs. An attacker who can run the publisher's
// signing workflow is trusted; the log then shows what was signed. SECURITY.md lists
// the parties with the test for each limit. TestVerification is the table of what is
// refused, and testdata/verification.golden its messages.
//
// The package fetches nothing, and does not decide whether a node wants a release:
// package release does.
package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Limits, checked before parsing: sigstore-go limits counts, not sizes. Real bundles
// have 5 to 16 KiB, the production root 7 KiB.
const (
	MaxBundle = 64 << 10
	MaxRoot   = 64 << 10

	maxLogEntries = 2
	maxTimestamps = 2
)

// mediaTypes of the bundle v0.3, as cosign 3 writes it and as older tools did.
var mediaTypes = map[string]bool{
	"application/vnd.dev.sigstore.bundle.v0.3+json":        true,
	"application/vnd.dev.sigstore.bundle+json;version=0.3": true,
}

// Verifier checks releases against one trust root and one allowlist. It is safe for
// concurrent use.
type Verifier struct {
	v       *verify.Verifier
	root    *root.TrustedRoot
	leftOut []string
	signers []Signer
}

// New returns a Verifier for a trusted_root.json and rows of the allowlist. An empty
// allowlist or an incomplete row is an error.
func New(trustedRoot []byte, signers []Signer) (*Verifier, error) {
	if len(signers) == 0 {
		return nil, errors.New("the allowlist of signers is empty")
	}
	for i, s := range signers {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("signer %d: %w", i+1, err)
		}
	}
	tr, leftOut, err := newTrusted(trustedRoot)
	if err != nil {
		return nil, err
	}
	v, err := verify.NewVerifier(tr,
		verify.WithSignedCertificateTimestamps(1),
		verify.WithTransparencyLog(1),
		verify.WithObserverTimestamps(1))
	if err != nil {
		return nil, fmt.Errorf("trusted root: %s", oneLine(err))
	}
	return &Verifier{v: v, root: tr, leftOut: leftOut, signers: append([]Signer(nil), signers...)}, nil
}

// Release is a manifest that an allowed signer signed. Only Verifier.Release makes one;
// every function that takes a Release refuses the zero value.
type Release struct {
	manifest release.Manifest
	sha256   string // of the manifest's bytes
	signed   Signature
	ok       bool
}

// OK reports whether r came from a Verifier.
func (r Release) OK() bool { return r.ok }

// Manifest returns what was signed.
func (r Release) Manifest() release.Manifest { return r.manifest }

// ManifestSHA256 returns the SHA-256 of the manifest as it was signed, in lower-case hex.
func (r Release) ManifestSHA256() string { return r.sha256 }

// Signature returns who signed, and when.
func (r Release) Signature() Signature { return r.signed }

// Signature is the identity behind a Release.
type Signature struct {
	Issuer     string    `json:"issuer"`      // of the OIDC token
	Repository string    `json:"repository"`  // https://github.com/OWNER/REPO
	Workflow   string    `json:"workflow"`    // the SAN: workflow file and ref
	Ref        string    `json:"ref"`         // refs/tags/v1.5.0
	Commit     string    `json:"commit"`      // that was built
	Run        string    `json:"run"`         // URL of the workflow run
	Log        string    `json:"log"`         // URL of the transparency log
	LogIndex   int64     `json:"log_index"`   // of the entry; the log does not sign it
	Time       time.Time `json:"time"`        // as signed by the log or a timestamp authority
	TimeSource string    `json:"time_source"` // who signed the time
}

// Release verifies bundle as a signature over manifest, matches the signer against the
// allowlist, and parses the manifest only then. Every error is a *release.Error on
// one line.
func (v *Verifier) Release(manifest, bundleJSON []byte) (Release, error) {
	if len(manifest) > release.MaxManifest {
		return Release{}, release.Errorf(release.ManifestInvalid, "manifest of %d bytes, more than %d", len(manifest), release.MaxManifest)
	}
	b, legacy, err := v.parse(manifest, bundleJSON)
	if err != nil {
		return Release{}, release.Errorf(release.SignatureInvalid, "signature bundle: %s", oneLine(err))
	}
	res, err := v.v.Verify(b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(manifest)), verify.WithoutIdentitiesUnsafe()))
	if err != nil {
		return Release{}, v.why(b, err)
	}
	if res.Signature == nil || res.Signature.Certificate == nil {
		return Release{}, release.Errorf(release.SignatureInvalid, "signature: made with a bare key, not with a certificate")
	}
	cert := res.Signature.Certificate
	if err := v.allowed(cert, legacy); err != nil {
		return Release{}, release.Errorf(release.IdentityNotAllowed, "signer not allowed: %w", err)
	}
	m, err := release.Parse(manifest)
	if err != nil {
		return Release{}, err
	}
	if want := "refs/tags/v" + m.Version.String(); cert.SourceRepositoryRef != want {
		return Release{}, release.Errorf(release.IdentityNotAllowed,
			"signer not allowed: the manifest says version %s, but was signed for %.200q, not %s", m.Version, cert.SourceRepositoryRef, want)
	}
	sum := sha256.Sum256(manifest)
	r := Release{manifest: m, sha256: hex.EncodeToString(sum[:]), ok: true, signed: Signature{
		Issuer:     cert.Issuer,
		Repository: cert.SourceRepositoryURI, Workflow: cert.SubjectAlternativeName, Ref: cert.SourceRepositoryRef,
		Commit: cert.SourceRepositoryDigest, Run: cert.RunInvocationURI,
	}}
	for _, e := range b.VerificationMaterial.GetTlogEntries() {
		if l, ok := v.root.RekorLogs()[hex.EncodeToString(e.GetLogId().GetKeyId())]; ok {
			r.signed.Log, r.signed.LogIndex = l.BaseURL, e.GetLogIndex()
			break
		}
	}
	if len(res.VerifiedTimestamps) > 0 {
		t := res.VerifiedTimestamps[0]
		r.signed.Time, r.signed.TimeSource = t.Timestamp.UTC(), t.URI
	}
	return r, nil
}

// why returns the error of a bundle that does not hold, with a code that says which part of it:
// the log, the time, or all else. err is what the check of the whole says.
func (v *Verifier) why(b *bundle.Bundle, err error) error {
	logged, logErr := v.v.VerifyTransparencyLogInclusion(b)
	if logErr != nil {
		return release.Errorf(release.RekorInvalid,
			"transparency log: no entry of a log that the trust root knows proves that the signature was logged (%s)", oneLine(logErr))
	}
	if _, timeErr := v.v.VerifyObserverTimestamps(b, logged); timeErr != nil {
		return release.Errorf(release.RekorInvalid,
			"time of signing: neither a log nor a timestamp authority that the trust root knows attests it (%s)", oneLine(timeErr))
	}
	return release.Errorf(release.SignatureInvalid,
		"signature: the certificate chain, its transparency proof, or the signature over the manifest does not hold (%s)", oneLine(err))
}

// allowed returns nil if a row matches, and otherwise what differs in each row.
func (v *Verifier) allowed(c *certificate.Summary, legacy bool) error {
	const most = 3
	var misses []string
	for _, s := range v.signers {
		err := s.match(c)
		if err == nil && legacy && !s.Legacy {
			err = errors.New("this row does not accept cosign 2's legacy JSON")
		}
		if err == nil {
			return nil
		}
		misses = append(misses, err.Error())
	}
	if n := len(misses); n > most {
		misses = append(misses[:most], fmt.Sprintf("and %d more rows", n-most))
	}
	return errors.New(strings.Join(misses, "; "))
}

// parse reads a bundle v0.3, or cosign 2's JSON if a row accepts that.
func (v *Verifier) parse(manifest, b []byte) (pb *bundle.Bundle, legacy bool, err error) {
	if len(b) > MaxBundle {
		return nil, false, fmt.Errorf("%d bytes, more than %d", len(b), MaxBundle)
	}
	if isLegacy(b) {
		if !slices.ContainsFunc(v.signers, func(s Signer) bool { return s.Legacy }) {
			return nil, true, errors.New("this is cosign 2's legacy JSON, which no row of the allowlist accepts; a bundle v0.3 is required (cosign 3 writes it)")
		}
		digest := sha256.Sum256(manifest)
		pb, err = parseLegacy(b, digest[:])
		return pb, true, err
	}
	pb, err = parseBundle(b)
	return pb, false, err
}

func parseBundle(b []byte) (*bundle.Bundle, error) {
	var pb bundle.Bundle
	if err := pb.UnmarshalJSON(b); err != nil {
		return nil, fmt.Errorf("not a Sigstore bundle: %w", err)
	}
	if !mediaTypes[pb.MediaType] {
		return nil, fmt.Errorf("media type is %.100q; a bundle v0.3 is required", pb.MediaType)
	}
	m := pb.VerificationMaterial
	if pb.GetMessageSignature() == nil {
		return nil, errors.New("holds no message signature (a DSSE envelope, perhaps)")
	}
	if m.GetCertificate() == nil {
		return nil, errors.New("holds no single certificate (a chain or a bare key, perhaps)")
	}
	if n := len(m.GetTlogEntries()); n > maxLogEntries {
		return nil, fmt.Errorf("%d log entries, more than %d", n, maxLogEntries)
	}
	if n := len(m.GetTimestampVerificationData().GetRfc3161Timestamps()); n > maxTimestamps {
		return nil, fmt.Errorf("%d timestamps, more than %d", n, maxTimestamps)
	}
	return &pb, nil
}

// oneLine returns a library's error on one line of bounded length, without the marks
// of a %w that had nothing to wrap.
func oneLine(err error) string {
	const most = 300
	s := strings.ReplaceAll(err.Error(), "%!w(<nil>)", "unknown")
	s = strings.ReplaceAll(s, "\u00a0", " ") // protobuf's errors have it now and then
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
