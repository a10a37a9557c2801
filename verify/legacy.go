package verify

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	pbundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	pcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// legacy is the JSON of cosign 2's `sign-blob --bundle`.
type legacy struct {
	Signature []byte `json:"base64Signature"`
	Cert      []byte `json:"cert"` // PEM
	Rekor     struct {
		SignedEntryTimestamp []byte `json:"SignedEntryTimestamp"`
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		} `json:"Payload"`
	} `json:"rekorBundle"`
}

// parseLegacy converts cosign 2's JSON into the bundle v0.1 that it is equivalent to: it
// has the log's signed promise to include the entry, and no proof of inclusion.
func parseLegacy(b []byte, digest []byte) (*bundle.Bundle, error) {
	var l legacy
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("not cosign 2's JSON: %w", err)
	}
	block, rest := pem.Decode(l.Cert)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return nil, errors.New("cert is not one PEM certificate")
	}
	id, err := hex.DecodeString(l.Rekor.Payload.LogID)
	if err != nil {
		return nil, errors.New("logID is not hexadecimal")
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := json.Unmarshal(l.Rekor.Payload.Body, &kind); err != nil {
		return nil, fmt.Errorf("the log entry is not JSON: %w", err)
	}
	p := l.Rekor.Payload
	return bundle.NewBundle(&pbundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle+json;version=0.1",
		VerificationMaterial: &pbundle.VerificationMaterial{
			Content: &pbundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &pcommon.X509CertificateChain{
				Certificates: []*pcommon.X509Certificate{{RawBytes: block.Bytes}}}},
			TlogEntries: []*prekor.TransparencyLogEntry{{
				LogIndex: p.LogIndex, LogId: &pcommon.LogId{KeyId: id}, IntegratedTime: p.IntegratedTime, CanonicalizedBody: p.Body,
				KindVersion:      &prekor.KindVersion{Kind: kind.Kind, Version: kind.Version},
				InclusionPromise: &prekor.InclusionPromise{SignedEntryTimestamp: l.Rekor.SignedEntryTimestamp},
			}},
		},
		Content: &pbundle.Bundle_MessageSignature{MessageSignature: &pcommon.MessageSignature{
			MessageDigest: &pcommon.HashOutput{Algorithm: pcommon.HashAlgorithm_SHA2_256, Digest: digest}, Signature: l.Signature}},
	})
}

// isLegacy reports whether b is cosign 2's JSON.
func isLegacy(b []byte) bool {
	var l struct {
		Signature json.RawMessage `json:"base64Signature"`
	}
	return json.Unmarshal(b, &l) == nil && l.Signature != nil
}
