package fakesig

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
)

const maxRequest = 1 << 20

// Handler serves the calls that cosign makes to Fulcio (POST /api/v2/signingCert) and
// Rekor v1 (POST /api/v1/log/entries). Every client gets a certificate with the claims
// c: the handler ignores the identity token.
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
		entry, set := i.promise(body, time.Now())
		inc := include(body, false)
		hashes := make([]string, len(inc.proof))
		for k, p := range inc.proof {
			hashes[k] = hex.EncodeToString(p)
		}
		entry["verification"] = map[string]any{
			"signedEntryTimestamp": set,
			"inclusionProof": map[string]any{"logIndex": inc.index, "treeSize": inc.size, "rootHash": hex.EncodeToString(inc.root), "hashes": hashes,
				"checkpoint": string(i.checkpoint(inc))},
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
