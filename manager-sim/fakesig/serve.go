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
	"encoding/pem"
	"io"
	"net/http"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	rekorutil "github.com/sigstore/rekor/pkg/util"
	"github.com/sigstore/sigstore/pkg/signature"
)

const maxRequest = 1 << 20

// Handler serves what cosign asks of Fulcio (POST /api/v2/signingCert) and of
// Rekor v1 (POST /api/v1/log/entries). Whoever asks gets a certificate with the
// claims c: the identity token is not looked at.
func (i *Instance) Handler(c Claims) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/signingCert", func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			PublicKeyRequest struct {
				PublicKey struct {
					Content string `json:"content"`
				} `json:"publicKey"`
			} `json:"publicKeyRequest"`
		}
		if !decode(w, r, &req) {
			return
		}
		block, _ := pem.Decode([]byte(req.PublicKeyRequest.PublicKey.Content))
		if block == nil {
			http.Error(w, "no key", http.StatusBadRequest)
			return
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		leaf := i.leaf(c, key, time.Now().UTC().Truncate(time.Second), Opt{})
		answer(w, http.StatusOK, map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{
			"certificates": []string{string(pemCert(leaf)), string(pemCert(i.inter.cert)), string(pemCert(i.root.cert))}}}})
	})
	mux.HandleFunc("POST /api/v1/log/entries", func(w http.ResponseWriter, r *http.Request) {
		var proposed json.RawMessage
		if !decode(w, r, &proposed) {
			return
		}
		body, err := jsoncanonicalizer.Transform(proposed)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		id := hex.EncodeToString(keyID(i.rekor1.Public()))
		const index = 778
		entry := map[string]any{"body": base64.StdEncoding.EncodeToString(body), "integratedTime": time.Now().Unix(), "logIndex": index, "logID": id}
		h := sha256.Sum256(must(jsoncanonicalizer.Transform(must(json.Marshal(entry)))))
		inc := include(body, false)
		hashes := make([]string, len(inc.proof))
		for k, p := range inc.proof {
			hashes[k] = hex.EncodeToString(p)
		}
		s := must(signature.LoadECDSASignerVerifier(i.rekor1, crypto.SHA256))
		const treeID = 1193050959916656506
		entry["verification"] = map[string]any{
			"signedEntryTimestamp": must(ecdsa.SignASN1(rand.Reader, i.rekor1, h[:])),
			"inclusionProof": map[string]any{"logIndex": inc.index, "treeSize": inc.size, "rootHash": hex.EncodeToString(inc.root), "hashes": hashes,
				"checkpoint": string(must(rekorutil.CreateAndSignCheckpoint(context.Background(), hostname(rekor1URL), treeID, uint64(inc.size), inc.root, s)))},
		}
		leaf := sha256.Sum256(body)
		uuid := hex.EncodeToString(leaf[:])
		w.Header().Set("ETag", uuid)
		answer(w, http.StatusCreated, map[string]any{uuid: entry})
	})
	return mux
}

func decode(w http.ResponseWriter, r *http.Request, to any) bool {
	err := json.NewDecoder(io.LimitReader(r.Body, maxRequest)).Decode(to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
