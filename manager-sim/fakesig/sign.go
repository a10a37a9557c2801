package fakesig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"

	"github.com/digitorus/timestamp"
	pbundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	pcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// Opt selects the form of a bundle, and its faults.
type Opt struct {
	RekorV2      bool          // a Rekor v2 entry with a timestamp
	TSA          bool          // add an RFC 3161 timestamp to Rekor v1
	LogDelay     time.Duration // from the certificate's start to the log's or TSA's time; default 5 s
	NoLog        bool          // no log entry; a timestamp instead
	NoSCT        bool          // a certificate without an SCT
	NoSET        bool          // Rekor v1 without its signed time
	NoTSA        bool          // Rekor v2 without a timestamp, so without a signed time
	BadProof     bool          // an inclusion proof with a bit flipped
	NoProof      bool          // no inclusion proof, in a bundle v0.1 (as cosign 2 wrote it)
	BadSignature bool          // a signature over other bytes, logged all the same
	TSAFrom      *Instance     // another instance made the timestamp
	CAFrom       *Instance     // another instance issued the certificate and its SCT
	CTFrom       *Instance     // another instance issued the SCT
}

// Sign returns a bundle v0.3 over artefact, signed with a certificate of the claims c.
func (i *Instance) Sign(artefact []byte, c Claims, at time.Time, o Opt) ([]byte, error) {
	at = at.UTC().Truncate(time.Second)
	if o.LogDelay == 0 {
		o.LogDelay = 5 * time.Second
	}
	logAt := at.Add(o.LogDelay)
	digest := sha256.Sum256(artefact)
	signed := digest
	if o.BadSignature {
		signed[0] ^= 1
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	sig := must(ecdsa.SignASN1(rand.Reader, key, signed[:]))
	ca := i
	if o.CAFrom != nil {
		ca = o.CAFrom
	}
	leaf := ca.leaf(c, key.Public(), at, o)

	vm := &pbundle.VerificationMaterial{Content: &pbundle.VerificationMaterial_Certificate{
		Certificate: &pcommon.X509Certificate{RawBytes: leaf.Raw}}}
	switch {
	case o.NoLog:
	case o.RekorV2:
		vm.TlogEntries = []*prekor.TransparencyLogEntry{i.entryV2(digest[:], sig, leaf, o)}
	default:
		vm.TlogEntries = []*prekor.TransparencyLogEntry{i.entryV1(digest[:], sig, leaf, logAt, o)}
	}
	if (o.RekorV2 || o.TSA || o.NoLog) && !o.NoTSA {
		vm.TimestampVerificationData = &pbundle.TimestampVerificationData{
			Rfc3161Timestamps: []*pcommon.RFC3161SignedTimestamp{{SignedTimestamp: i.timestamp(sig, logAt, o.TSAFrom)}}}
	}
	mediaType := "application/vnd.dev.sigstore.bundle.v0.3+json"
	if o.NoProof {
		mediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	}
	return protojson.Marshal(&pbundle.Bundle{MediaType: mediaType, VerificationMaterial: vm,
		Content: &pbundle.Bundle_MessageSignature{MessageSignature: &pcommon.MessageSignature{
			MessageDigest: &pcommon.HashOutput{Algorithm: pcommon.HashAlgorithm_SHA2_256, Digest: digest[:]}, Signature: sig}}})
}

func (i *Instance) timestamp(sig []byte, at time.Time, from *Instance) []byte {
	tsa := i.tsaLeaf
	if from != nil {
		tsa = from.tsaLeaf
	}
	h := sha256.Sum256(sig)
	ts := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: h[:], Time: at,
		Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}}
	return must(ts.CreateResponseWithOpts(tsa.cert, tsa.key, crypto.SHA256))
}

func pemCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Legacy returns a bundle with a Rekor v1 entry in the JSON that cosign 2's `sign-blob
// --bundle` wrote.
func Legacy(bundle []byte) ([]byte, error) {
	var b pbundle.Bundle
	if err := protojson.Unmarshal(bundle, &b); err != nil {
		return nil, err
	}
	entries := b.GetVerificationMaterial().GetTlogEntries()
	if len(entries) == 0 || entries[0].GetInclusionPromise() == nil {
		return nil, errors.New("fakesig: only a bundle with a signed entry timestamp has a legacy form")
	}
	e := entries[0]
	cert, err := x509.ParseCertificate(b.GetVerificationMaterial().GetCertificate().GetRawBytes())
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"base64Signature": base64.StdEncoding.EncodeToString(b.GetMessageSignature().GetSignature()),
		"cert":            base64.StdEncoding.EncodeToString(pemCert(cert)),
		"rekorBundle": map[string]any{
			"SignedEntryTimestamp": e.InclusionPromise.SignedEntryTimestamp,
			"Payload": map[string]any{"body": e.CanonicalizedBody, "integratedTime": e.IntegratedTime,
				"logIndex": e.LogIndex, "logID": hex.EncodeToString(e.LogId.KeyId)},
		},
	})
}
