package verify

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// Key is a party that a trust root trusts, and when. A zero End means no end.
type Key struct {
	Kind  string    `json:"kind"` // "certificate authority", "CT log", "transparency log", "timestamp authority"
	URL   string    `json:"url"`
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end,omitzero"`
}

// Keys returns the parties that v trusts, by kind, oldest first.
func (v *Verifier) Keys() []Key {
	var keys []Key
	add := func(kind, url string, start, end time.Time) { keys = append(keys, Key{kind, url, start, end}) }
	for _, ca := range v.root.FulcioCertificateAuthorities() {
		if ca, ok := ca.(*root.FulcioCertificateAuthority); ok {
			add("certificate authority", ca.URI, ca.ValidityPeriodStart, ca.ValidityPeriodEnd)
		}
	}
	for _, l := range v.root.CTLogs() {
		add("CT log", l.BaseURL, l.ValidityPeriodStart, l.ValidityPeriodEnd)
	}
	for _, l := range v.root.RekorLogs() {
		add("transparency log", l.BaseURL, l.ValidityPeriodStart, l.ValidityPeriodEnd)
	}
	for _, ta := range v.root.TimestampingAuthorities() {
		if ta, ok := ta.(*root.SigstoreTimestampingAuthority); ok {
			add("timestamp authority", ta.URI, ta.ValidityPeriodStart, ta.ValidityPeriodEnd)
		}
	}
	sort.SliceStable(keys, func(i, j int) bool {
		a, b := keys[i], keys[j]
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Start.Compare(b.Start), cmp.Compare(a.URL, b.URL)) < 0
	})
	return keys
}

// LeftOut names the parties of the trust root that v does not trust, because this program
// does not understand them, each with the reason on one line.
func (v *Verifier) LeftOut() []string { return slices.Clone(v.leftOut) }

// Signers returns the rows of the allowlist.
func (v *Verifier) Signers() []Signer { return slices.Clone(v.signers) }
