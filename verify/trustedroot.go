package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/release"
	"github.com/sigstore/sigstore-go/pkg/root"
)

// parties are the lists of a trusted_root.json, by the names that it may give them.
var parties = map[string]string{
	"tlogs": "tlogs", "ctlogs": "ctlogs",
	"certificateAuthorities": "certificateAuthorities", "certificate_authorities": "certificateAuthorities",
	"timestampAuthorities": "timestampAuthorities", "timestamp_authorities": "timestampAuthorities",
}

// newTrusted parses a trusted_root.json. An entry that holds anything that this program does
// not understand, such as a new type of key, is left out whole: it may restrict what the
// entry is trusted for. So an unknown entry only ever takes trust away. leftOut names each.
// An unknown field beside the entries, or another media type, refuses the root, and so does
// a root that has no certificate authority, no CT log or no transparency log left.
func newTrusted(trustedRoot []byte) (_ *root.TrustedRoot, leftOut []string, err error) {
	if len(trustedRoot) > MaxRoot {
		return nil, nil, fmt.Errorf("trusted root of %d bytes, more than %d", len(trustedRoot), MaxRoot)
	}
	tr, err := parseRoot(trustedRoot)
	if err != nil {
		if trustedRoot, leftOut, err = understood(trustedRoot); err == nil {
			tr, err = parseRoot(trustedRoot)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("trusted root: %s", oneLine(err))
	}
	missing := ""
	switch {
	case len(tr.FulcioCertificateAuthorities()) == 0:
		missing = "certificate authority"
	case len(tr.CTLogs()) == 0:
		missing = "CT log"
	case len(tr.RekorLogs()) == 0:
		missing = "transparency log"
	default:
		return tr, leftOut, nil
	}
	if leftOut != nil {
		return nil, nil, fmt.Errorf("trusted root: this program understands no %s of it (%s)", missing, strings.Join(leftOut, "; "))
	}
	return nil, nil, fmt.Errorf("trusted root: it has no %s", missing)
}

// parseRoot parses a trusted_root.json of which everything must be understood.
func parseRoot(trustedRoot []byte) (*root.TrustedRoot, error) {
	tr, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, a := range tr.FulcioCertificateAuthorities() {
		if a, ok := a.(*root.FulcioCertificateAuthority); ok {
			certs = append(append(certs, a.Root), a.Intermediates...)
		}
	}
	for _, a := range tr.TimestampingAuthorities() {
		if a, ok := a.(*root.SigstoreTimestampingAuthority); ok {
			certs = append(append(certs, a.Root, a.Leaf), a.Intermediates...)
		}
	}
	for _, c := range certs {
		switch {
		case c == nil:
		case c.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm || c.SignatureAlgorithm == x509.UnknownSignatureAlgorithm:
			return nil, fmt.Errorf("the certificate %s has a key or a signature of an unknown type", release.Foreign(c.Subject.String(), 100))
		case len(c.UnhandledCriticalExtensions) > 0:
			return nil, fmt.Errorf("the certificate %s has an unknown critical extension", release.Foreign(c.Subject.String(), 100))
		}
	}
	return tr, nil
}

// entry is one party of a trusted_root.json.
type entry struct {
	list, name string // the party's list, and what messages call the party
	text       json.RawMessage
	logID      string // "" if it is no log, or has none that can be read
	unknown    error  // why it is left out
}

// understood returns the trusted_root.json without the entries that hold anything unknown.
func understood(trustedRoot []byte) (rest []byte, leftOut []string, err error) {
	mediaType, entries, err := entriesOf(trustedRoot)
	if err != nil {
		return nil, nil, err
	}
	for i, e := range entries {
		_, entries[i].unknown = parseRoot(rootOf(mediaType, []entry{e}))
	}
	// Of two logs with one id the later one counts. The earlier must not count because
	// the later is not understood.
	for i, e := range entries {
		if e.unknown == nil && slices.ContainsFunc(entries, func(o entry) bool {
			return o.unknown != nil && o.list == e.list && o.logID != "" && o.logID == e.logID
		}) {
			entries[i].unknown = errors.New("another log with its id is left out")
		}
	}
	var kept []entry
	for _, e := range entries {
		if e.unknown == nil {
			kept = append(kept, e)
			continue
		}
		leftOut = append(leftOut, fmt.Sprintf("%s: %s", e.name, oneLine(e.unknown)))
	}
	return rootOf(mediaType, kept), leftOut, nil
}

// rootOf returns a trusted_root.json with these entries.
func rootOf(mediaType json.RawMessage, entries []entry) []byte {
	b := append([]byte(`{"mediaType":`), mediaType...)
	for _, list := range []string{"tlogs", "certificateAuthorities", "ctlogs", "timestampAuthorities"} {
		var texts [][]byte
		for _, e := range entries {
			if e.list == list {
				texts = append(texts, e.text)
			}
		}
		b = fmt.Appendf(b, `,%q:[%s]`, list, bytes.Join(texts, []byte(",")))
	}
	return append(b, '}')
}

// entriesOf splits a trusted_root.json. It refuses what may change the meaning of the whole:
// unknown fields beside the lists, another media type, and fields that are there twice.
func entriesOf(trustedRoot []byte) (mediaType json.RawMessage, entries []entry, err error) {
	d := json.NewDecoder(bytes.NewReader(trustedRoot))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		field, _ := t.(string)
		list, isList := parties[field]
		if field == "mediaType" || field == "media_type" {
			list = "mediaType"
		} else if !isList {
			return nil, nil, fmt.Errorf("unknown field %q: a newer edge-agent may understand it", release.Foreign(field, 60))
		}
		if seen[list] {
			return nil, nil, fmt.Errorf("the field %q is there twice", field)
		}
		seen[list] = true
		if !isList {
			if err := d.Decode(&mediaType); err != nil {
				return nil, nil, err
			}
			continue
		}
		var texts []json.RawMessage
		if err := d.Decode(&texts); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", field, err)
		}
		for i, text := range texts {
			entries = append(entries, newEntry(list, i, text))
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, errors.New("more bytes after its end")
	}
	var name string
	if json.Unmarshal(mediaType, &name) != nil || name != root.TrustedRootMediaType01 {
		return nil, nil, fmt.Errorf("media type %q is not %s: a newer edge-agent may understand it", release.Foreign(string(mediaType), 100), root.TrustedRootMediaType01)
	}
	return mediaType, entries, nil
}

// newEntry reads of an entry only what names it.
func newEntry(list string, index int, text json.RawMessage) entry {
	var named struct {
		URI, BaseURL string
		BaseURL2     string `json:"base_url"`
		LogID        struct {
			KeyID  string
			KeyID2 string `json:"key_id"`
		}
		LogID2 struct {
			KeyID  string
			KeyID2 string `json:"key_id"`
		} `json:"log_id"`
	}
	json.Unmarshal(text, &named) // an entry without a name has its place in the list
	e := entry{list: list, text: text, name: fmt.Sprintf("entry %d of %s", index+1, list)}
	if url := named.URI + named.BaseURL + named.BaseURL2; url != "" {
		e.name += " (" + release.Foreign(url, 100) + ")"
	}
	id := named.LogID.KeyID + named.LogID.KeyID2 + named.LogID2.KeyID + named.LogID2.KeyID2
	e.logID = strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(id) // one form of base64
	return e
}
