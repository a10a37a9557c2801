package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
)

// lists of a trusted_root.json.
var lists = []string{"tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"}

// object is a part of a JSON text.
type object = map[string]any

// edited returns the trust root b after edit.
func edited(t *testing.T, b []byte, edit func(object)) []byte {
	t.Helper()
	var m object
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	edit(m)
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// oneMore adds a changed copy of the first entry of a list, with an id of its own if it
// is a log.
func oneMore(list string, change func(object)) func(object) {
	return func(m object) {
		entries := m[list].([]any)
		b, _ := json.Marshal(entries[0])
		var e object
		json.Unmarshal(b, &e)
		if _, log := e["logId"]; log {
			e["logId"] = object{"keyId": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
			e["baseUrl"] = "https://new.example"
		} else {
			e["uri"] = "https://new.example"
		}
		change(e)
		m[list] = append(entries, e)
	}
}

// What a newer trust root may hold that this program does not know takes trust away from
// one party only, and the message names the party. All other parties stay trusted.
func TestAnUnknownPartyIsLeftOut(t *testing.T) {
	t.Parallel()
	_, b := sigstore(t)
	before, _, err := newTrusted(b)
	if err != nil {
		t.Fatal(err)
	}
	count := func(b []byte) [4]int {
		t.Helper()
		tr, _, err := newTrusted(b)
		if err != nil {
			t.Fatal(err)
		}
		return [4]int{len(tr.RekorLogs()), len(tr.CTLogs()), len(tr.FulcioCertificateAuthorities()), len(tr.TimestampingAuthorities())}
	}
	want := count(b)
	if want[0] != len(before.RekorLogs()) || want[0] < 2 || want[1] == 0 || want[2] == 0 || want[3] == 0 {
		t.Fatalf("the trust root has %v", want)
	}
	key := func(name string, value any) func(object) {
		return func(e object) { e["publicKey"].(object)[name] = value }
	}
	set := func(name string, value any) func(object) { return func(e object) { e[name] = value } }
	forLogs := map[string]func(object){
		"a type of key":           key("keyDetails", "PKIX_SLH_DSA_9000"),
		"a type of key, not ours": key("keyDetails", "ML_DSA_65"),
		"a number of a type":      key("keyDetails", 9000),
		"a field of the key":      key("revokedAt", "2026-01-01T00:00:00Z"),
		"a field of its validity": func(e object) { e["publicKey"].(object)["validFor"].(object)["unless"] = "x" },
		"a hash":                  set("hashAlgorithm", "SHA4_512"),
		"a number of a hash":      set("hashAlgorithm", 99),
		"another known hash":      set("hashAlgorithm", "SHA2_512"),
		"a key that is none":      key("rawBytes", "AAAA"),
		"no validity":             func(e object) { delete(e["publicKey"].(object), "validFor") },
	}
	forAll := map[string]func(object){
		"a field":         set("restrictedTo", "tests"),
		"a wrong type":    set("operator", 7),
		"an empty object": func(e object) { clear(e) },
	}
	// changeCert replaces bytes in the last certificate of a chain.
	changeCert := func(old, to []byte) func(object) {
		return func(e object) {
			chain := e["certChain"].(object)["certificates"].([]any)
			last := chain[len(chain)-1].(object)
			der, err := base64.StdEncoding.DecodeString(last["rawBytes"].(string))
			if err != nil || !bytes.Contains(der, old) {
				t.Fatalf("%v: the certificate does not have %x", err, old)
			}
			last["rawBytes"] = bytes.ReplaceAll(der, old, to)
		}
	}
	forAuthorities := map[string]func(object){
		// id-ecPublicKey, ecdsa-with-SHA256 and basicConstraints become something unknown.
		"a certificate with another type of key":        changeCert([]byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1}, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 99}),
		"a certificate with another type of signature":  changeCert([]byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3}, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 99}),
		"a certificate with another critical extension": changeCert([]byte{0x55, 0x1d, 0x13}, []byte{0x55, 0x1d, 0x7f}),
		"a certificate that is none":                    set("certChain", object{"certificates": []any{object{"rawBytes": "AAAA"}}}),
		"no chain":                                      func(e object) { delete(e, "certChain") },
		"a field of its validity":                       func(e object) { e["validFor"].(object)["unless"] = "x" },
	}
	for i, list := range lists {
		changes := maps.Clone(forAll)
		if i < 2 {
			maps.Copy(changes, forLogs)
		} else {
			maps.Copy(changes, forAuthorities)
		}
		for name, change := range changes {
			root := edited(t, b, oneMore(list, change))
			_, leftOut, err := newTrusted(root)
			if err != nil || len(leftOut) != 1 || count(root) != want {
				t.Errorf("%s: %s: %v, left out %q, kept %v of %v", list, name, err, leftOut, count(root), want)
				continue
			}
			place := fmt.Sprintf("entry %d of %s", want[i]+1, list)
			if !strings.Contains(leftOut[0], place) || name != "an empty object" && !strings.Contains(leftOut[0], "https://new.example") || strings.ContainsAny(leftOut[0], "\n\r") {
				t.Errorf("%s: %s: the message is %q", list, name, leftOut[0])
			}
		}
		// The same with every entry of the list: what is left must do for a release.
		root := edited(t, b, func(m object) {
			for _, e := range m[list].([]any) {
				e.(object)["restrictedTo"] = "tests"
			}
		})
		_, leftOut, err := newTrusted(root)
		if optional := list == "timestampAuthorities"; optional != (err == nil) || optional && len(leftOut) != want[3] {
			t.Errorf("nothing of %s is understood: %v, left out %q", list, err, leftOut)
		} else if !optional && !strings.Contains(err.Error(), "restrictedTo") {
			t.Errorf("nothing of %s is understood, and the error does not say why: %v", list, err)
		}
		if _, _, err := newTrusted(edited(t, b, func(m object) { delete(m, list) })); (err == nil) != (list == "timestampAuthorities") {
			t.Errorf("a root without %s: %v", list, err)
		}
	}
}

// What stands beside the parties may change what the whole means.
func TestAnUnknownTrustRootIsRefused(t *testing.T) {
	t.Parallel()
	_, b := sigstore(t)
	for name, root := range map[string][]byte{
		"a field":                edited(t, b, func(m object) { m["revoked"] = []any{} }),
		"the keys of another":    edited(t, b, func(m object) { m["Tlogs"] = m["tlogs"]; delete(m, "tlogs") }),
		"another media type":     edited(t, b, func(m object) { m["mediaType"] = "application/vnd.dev.sigstore.trustedroot+json;version=0.2" }),
		"no media type":          edited(t, b, func(m object) { delete(m, "mediaType") }),
		"a media type of a list": edited(t, b, func(m object) { m["mediaType"] = []any{m["mediaType"]} }),
		"a list that is none":    edited(t, b, func(m object) { m["tlogs"] = object{"1": m["tlogs"]} }),
		"a list twice":           []byte(strings.Replace(string(b), "{", `{"tlogs":[],`, 1)),
		"a list by two names":    []byte(strings.Replace(string(b), "{", `{"certificate_authorities":[],`, 1)),
		"more after its end":     append(append([]byte{}, b...), "{}"...),
		"cut":                    b[:len(b)-2],
		"nothing":                nil,
	} {
		// With and without a party that must be left out.
		for _, b := range [][]byte{root, []byte(strings.Replace(string(root), `"baseUrl"`, `"unknown":1,"baseUrl"`, 1))} {
			if _, _, err := newTrusted(b); err == nil || !strings.HasPrefix(err.Error(), "trusted root: ") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Of two logs with one id the later counts. If that is not understood, the earlier one must
// not be trusted for what the later withdraws, in whatever form the id is written.
func TestALogThatAnUnknownOneReplaces(t *testing.T) {
	t.Parallel()
	_, b := sigstore(t)
	for name, form := range map[string]func(string) string{
		"as it was": func(id string) string { return id },
		"URL form":  strings.NewReplacer("+", "-", "/", "_").Replace,
		"unpadded":  func(id string) string { return strings.TrimRight(id, "=") },
	} {
		root := edited(t, b, oneMore("tlogs", func(e object) {}))
		root = edited(t, root, func(m object) {
			logs := m["tlogs"].([]any)
			last, first := logs[len(logs)-1].(object), logs[0].(object)
			last["logId"] = object{"keyId": form(first["logId"].(object)["keyId"].(string))}
			last["until"] = "yesterday"
		})
		tr, leftOut, err := newTrusted(root)
		before, _, _ := newTrusted(b)
		if err != nil || len(leftOut) != 2 || len(tr.RekorLogs()) != len(before.RekorLogs())-1 {
			t.Errorf("%s: %v, left out %q", name, err, leftOut)
		}
	}
}

// A renewal keeps the signed bytes whole: a later program may understand more of them.
func TestARenewalWithAnUnknownParty(t *testing.T) {
	t.Parallel()
	i, b := sigstore(t)
	newer := edited(t, b, oneMore("tlogs", func(e object) { e["publicKey"].(object)["keyDetails"] = "ML_DSA_65" }))
	a := anchor{root: fakesig.TUFRoot(1, "ab", "t", "ab")}
	files := dirOf(map[string][]byte{targetsFile: fakesig.TUFTargets(1, newer, "t"), trustedRootFile: newer})
	r, err := a.renew(files, nil)
	if err != nil || len(r.LeftOut) != 1 || string(r.TrustedRoot()) != string(newer) {
		t.Fatalf("%v, left out %q", err, r.LeftOut)
	}
	again, err := a.known(dirOf(r.Files))
	if err != nil || string(again.TrustedRoot()) != string(newer) {
		t.Fatal(err)
	}
	claims := fakesig.GitHub("acme/edge", ".github/workflows/release.yml", "refs/tags/v1.5.0", strings.Repeat("0", 40))
	v, err := New(again.TrustedRoot(), []Signer{{Issuer: claims.Issuer, Repository: claims.SourceRepositoryURI, Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*"}})
	if err != nil || len(v.LeftOut()) != 1 {
		t.Fatal(err)
	}
	m := fmt.Appendf(nil, `{"version":"1.5.0","device_type":"edge","channel":"stable","released_at":"2026-01-01T00:00:00Z","sequence":1,
		"artefacts":[{"arch":"x86_64-linux","variant":"default","url":"https://github.com/acme/edge/x.tar.gz","sha256":%q}]}`, strings.Repeat("0", 64))
	bundle, err := i.Sign(m, claims, time.Now(), fakesig.Opt{})
	if err != nil {
		t.Fatal(err)
	}
	if rel, err := v.Release(m, bundle); err != nil || !rel.OK() {
		t.Errorf("a release that the known parties prove: %v", err)
	}
}

// The TUF metadata may use keys and digests that this program does not know, beside enough
// of those that it does.
func TestTUFMetadataOfANewerKind(t *testing.T) {
	t.Parallel()
	_, b := sigstore(t)
	a := anchor{root: fakesig.TUFRoot(1, "abc", "t", "ab")}
	unknown := func(id, typ, scheme string) fakesig.TUFKey {
		return fakesig.TUFKey{ID: id, Type: typ, Scheme: scheme, Public: strings.Repeat("00", 32)}
	}
	mldsa := unknown("01", "ml-dsa-65", "ml-dsa-65")
	for name, tt := range map[string]struct {
		root2   []byte
		targets []byte
		want    string
	}{
		"a type of key":                     {fakesig.TUFRootWith(2, "abc", "t", "ab", mldsa), fakesig.TUFTargets(2, b, "t"), ""},
		"a scheme":                          {fakesig.TUFRootWith(2, "abc", "t", "ab", unknown("01", "ed25519", "ed25519ph-512")), fakesig.TUFTargets(2, b, "t"), ""},
		"a key of a wrong size":             {fakesig.TUFRootWith(2, "abc", "t", "ab", fakesig.TUFKey{ID: "01", Type: "ed25519", Scheme: "ed25519", Public: "00"}), fakesig.TUFTargets(2, b, "t"), ""},
		"too few signatures that are known": {fakesig.TUFRootWith(2, "ab", "t", "a", mldsa), fakesig.TUFTargets(2, b, "t"), "not signed by the keys"},
		"a digest beside a known one":       {nil, fakesig.TUFTargetsWith(2, b, "t", "sha256", "blake3"), ""},
		"a digest that is wrong":            {nil, fakesig.TUFTargetsWith(2, b, "t", "sha512"), "is not the one"},
		"no digest that is known":           {nil, fakesig.TUFTargetsWith(2, b, "t", "blake3"), "is not the one"},
	} {
		files := map[string][]byte{targetsFile: tt.targets, trustedRootFile: b}
		if tt.root2 != nil {
			files["2.root.json"] = tt.root2
		}
		r, err := a.renew(dirOf(files), nil)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		} else if err == nil && tt.root2 != nil && r.RootVersion != 2 {
			t.Errorf("%s: TUF root %d", name, r.RootVersion)
		}
	}
}
