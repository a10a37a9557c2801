package fakesig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"time"

	ct "github.com/google/certificate-transparency-go"
	cttls "github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	ctx509util "github.com/google/certificate-transparency-go/x509util"
)

// Claims are the SAN and the Fulcio extensions of a certificate, by name
// (github.com/sigstore/fulcio/blob/main/docs/oid-info.md).
type Claims struct {
	SAN                      string
	Issuer                   string // .1, .8
	Trigger                  string // .2, .20
	WorkflowName             string // .4
	BuildSignerURI           string // .9
	BuildSignerDigest        string // .10
	RunnerEnvironment        string // .11
	SourceRepositoryURI      string // .12
	SourceRepositoryDigest   string // .3, .13, .19
	SourceRepositoryRef      string // .6, .14
	SourceRepositoryID       string // .15
	SourceRepositoryOwnerURI string // .16
	SourceRepositoryOwnerID  string // .17
	BuildConfigURI           string // .18
	RunInvocationURI         string // .21
	Visibility               string // .22
}

const github = "https://github.com/"

// GitHub returns the claims of a GitHub Actions run of workflow (a path) in
// repo (OWNER/REPO) at ref and commit.
func GitHub(repo, workflow, ref, commit string) Claims {
	owner, _, _ := strings.Cut(repo, "/")
	build := github + repo + "/" + workflow + "@" + ref
	return Claims{
		SAN: build, Issuer: "https://token.actions.githubusercontent.com", Trigger: "push", WorkflowName: "release",
		BuildSignerURI: build, BuildSignerDigest: commit, RunnerEnvironment: "github-hosted",
		SourceRepositoryURI: github + repo, SourceRepositoryDigest: commit, SourceRepositoryRef: ref, SourceRepositoryID: "123456789",
		SourceRepositoryOwnerURI: github + owner, SourceRepositoryOwnerID: "987654", BuildConfigURI: build,
		RunInvocationURI: github + repo + "/actions/runs/1/attempts/1", Visibility: "public",
	}
}

// Reusable returns the claims of c for a run that calls a reusable workflow of repo,
// which then is the signer.
func (c Claims) Reusable(repo, workflow, ref, commit string) Claims {
	c.SAN = github + repo + "/" + workflow + "@" + ref
	c.BuildSignerURI, c.BuildSignerDigest = c.SAN, commit
	return c
}

func (c Claims) extensions() []pkix.Extension {
	var out []pkix.Extension
	oid := func(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n} }
	repo := strings.TrimPrefix(c.SourceRepositoryURI, github)
	for n, v := range []string{1: c.Issuer, 2: c.Trigger, 3: c.SourceRepositoryDigest, 4: c.WorkflowName, 5: repo, 6: c.SourceRepositoryRef} {
		if v != "" { // the older extensions are raw bytes
			out = append(out, pkix.Extension{Id: oid(n), Value: []byte(v)})
		}
	}
	for n, v := range []string{8: c.Issuer, 9: c.BuildSignerURI, 10: c.BuildSignerDigest, 11: c.RunnerEnvironment,
		12: c.SourceRepositoryURI, 13: c.SourceRepositoryDigest, 14: c.SourceRepositoryRef, 15: c.SourceRepositoryID,
		16: c.SourceRepositoryOwnerURI, 17: c.SourceRepositoryOwnerID, 18: c.BuildConfigURI, 19: c.SourceRepositoryDigest,
		20: c.Trigger, 21: c.RunInvocationURI, 22: c.Visibility} {
		if v != "" {
			out = append(out, pkix.Extension{Id: oid(n), Value: must(asn1.MarshalWithParams(v, "utf8"))})
		}
	}
	return out
}

// leaf issues a certificate that is valid for ten minutes from at, as Fulcio does, with
// an SCT of the CT log unless o.NoSCT.
func (i *Instance) leaf(c Claims, pub crypto.PublicKey, at time.Time, o Opt) *x509.Certificate {
	san := must(asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(c.SAN)}}))
	t := &x509.Certificate{
		SerialNumber: serial(), NotBefore: at, NotAfter: at.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: append([]pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san}}, c.extensions()...),
	}
	issue := func() *x509.Certificate {
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, t, i.inter.cert, pub, i.inter.key))))
	}
	pre := issue()
	if o.NoSCT {
		return pre
	}
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{
		Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: i.sctList(pre, at, o.CTFrom),
	})
	return issue()
}

// sctList returns the extension with the CT log's SCT of the precertificate.
func (i *Instance) sctList(pre *x509.Certificate, at time.Time, from *Instance) []byte {
	log := i.ct
	if from != nil {
		log = from.ct
	}
	sct := ct.SignedCertificateTimestamp{
		SCTVersion: ct.V1, LogID: ct.LogID{KeyID: [32]byte(keyID(log.Public()))}, Timestamp: uint64(at.UnixMilli()),
	}
	in := must(ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{
				IssuerKeyHash: sha256.Sum256(i.inter.cert.RawSubjectPublicKeyInfo), TBSCertificate: pre.RawTBSCertificate,
			}},
	}}))
	h := sha256.Sum256(in)
	sct.Signature = ct.DigitallySigned{
		Algorithm: cttls.SignatureAndHashAlgorithm{Hash: cttls.SHA256, Signature: cttls.ECDSA},
		Signature: must(ecdsa.SignASN1(rand.Reader, log, h[:])),
	}
	var list *ctx509.SignedCertificateTimestampList = must(ctx509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct}))
	return must(asn1.Marshal(must(cttls.Marshal(*list))))
}
