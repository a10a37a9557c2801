package fakesig

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	pcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	tilespb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	tilesnote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	rekorutil "github.com/sigstore/rekor/pkg/util"
	"github.com/sigstore/sigstore/pkg/signature"
	flog "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"
)

// inclusion returns the root of a tree of five leaves, with ours at index 2, and the
// inclusion proof of our leaf.
type inclusion struct {
	root  []byte
	proof [][]byte
	index int64
	size  int64
}

func include(body []byte, bad bool) inclusion {
	h := rfc6962.DefaultHasher
	l := make([][]byte, 5)
	for k := range l {
		l[k] = h.HashLeaf([]byte{byte(k)})
	}
	l[2] = h.HashLeaf(body)
	n01, n23 := h.HashChildren(l[0], l[1]), h.HashChildren(l[2], l[3])
	inc := inclusion{h.HashChildren(h.HashChildren(n01, n23), l[4]), [][]byte{l[3], n01, l[4]}, 2, 5}
	if bad {
		n01[0] ^= 1
	}
	return inc
}

func (inc inclusion) with(checkpoint []byte) *prekor.InclusionProof {
	return &prekor.InclusionProof{LogIndex: inc.index, TreeSize: inc.size, RootHash: inc.root, Hashes: inc.proof,
		Checkpoint: &prekor.Checkpoint{Envelope: string(checkpoint)}}
}

// entryV1 logs a signature in Rekor v1: hashedrekord 0.0.1.
func (i *Instance) entryV1(digest, sig []byte, leaf *x509.Certificate, at time.Time, o Opt) *prekor.TransparencyLogEntry {
	body := must(jsoncanonicalizer.Transform(must(json.Marshal(map[string]any{
		"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(digest)}},
			"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": pemCert(leaf)}},
		}}))))
	e := &prekor.TransparencyLogEntry{
		LogIndex: logIndex, LogId: &pcommon.LogId{KeyId: keyID(i.rekor1.Public())}, IntegratedTime: at.Unix(), CanonicalizedBody: body,
		KindVersion: &prekor.KindVersion{Kind: "hashedrekord", Version: "0.0.1"},
	}
	if !o.NoSET {
		_, set := i.promise(body, at)
		e.InclusionPromise = &prekor.InclusionPromise{SignedEntryTimestamp: set}
	}
	if !o.NoProof {
		inc := include(body, o.BadProof)
		e.InclusionProof = inc.with(i.checkpoint(inc))
	}
	return e
}

const logIndex = 777 // in the whole log of Rekor v1; the proof is for a shard

// promise returns Rekor v1's entry of a body, and the log's signature over it.
func (i *Instance) promise(body []byte, at time.Time) (entry map[string]any, set []byte) {
	entry = map[string]any{"body": base64.StdEncoding.EncodeToString(body), "integratedTime": at.Unix(), "logIndex": logIndex, "logID": hex.EncodeToString(keyID(i.rekor1.Public()))}
	h := sha256.Sum256(must(jsoncanonicalizer.Transform(must(json.Marshal(entry)))))
	return entry, must(ecdsa.SignASN1(rand.Reader, i.rekor1, h[:]))
}

// checkpoint returns Rekor v1's checkpoint of a tree.
func (i *Instance) checkpoint(inc inclusion) []byte {
	const treeID = 1193050959916656506
	s := must(signature.LoadECDSASignerVerifier(i.rekor1, crypto.SHA256))
	// The key is in memory: signing waits for nothing that a context could end.
	return must(rekorutil.CreateAndSignCheckpoint(context.Background(), hostname(rekor1URL), treeID, uint64(inc.size), inc.root, s))
}

// entryV2 logs a signature in Rekor v2: hashedrekord 0.0.2 in a tile log.
func (i *Instance) entryV2(digest, sig []byte, leaf *x509.Certificate, o Opt) *prekor.TransparencyLogEntry {
	body := must(jsoncanonicalizer.Transform(must(protojson.Marshal(&tilespb.Entry{
		ApiVersion: "0.0.2", Kind: "hashedrekord",
		Spec: &tilespb.Spec{Spec: &tilespb.Spec_HashedRekordV002{HashedRekordV002: &tilespb.HashedRekordLogEntryV002{
			Data: &pcommon.HashOutput{Algorithm: pcommon.HashAlgorithm_SHA2_256, Digest: digest},
			Signature: &tilespb.Signature{Content: sig, Verifier: &tilespb.Verifier{
				KeyDetails: pcommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
				Verifier:   &tilespb.Verifier_X509Certificate{X509Certificate: &pcommon.X509Certificate{RawBytes: leaf.Raw}},
			}},
		}}},
	}))))
	inc := include(body, o.BadProof)
	origin := hostname(rekor2URL)
	// The key is in memory, as in checkpoint.
	signer := must(tilesnote.NewNoteSigner(context.Background(), origin, must(signature.LoadED25519SignerVerifier(i.rekor2))))
	checkpoint := must(note.Sign(&note.Note{Text: string(flog.Checkpoint{Origin: origin, Size: uint64(inc.size), Hash: inc.root}.Marshal())}, signer))
	return &prekor.TransparencyLogEntry{
		LogIndex: inc.index, LogId: &pcommon.LogId{KeyId: i.rekor2ID()}, CanonicalizedBody: body,
		KindVersion:    &prekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof: inc.with(checkpoint),
	}
}
