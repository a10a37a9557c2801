package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// verification is one release that is right in everything but what its name
// says.
type verification struct {
	name   string
	claims fakesig.Claims
	opt    fakesig.Opt
	by     *fakesig.Instance
	at     time.Time
	rows   []verify.Signer
	edit   func(manifest, bundle []byte) ([]byte, []byte)
	ok     bool
}

// edited changes a part of the bundle's JSON.
func edited(change func(b map[string]any)) func([]byte, []byte) ([]byte, []byte) {
	return func(m, bundle []byte) ([]byte, []byte) {
		var b map[string]any
		if err := json.Unmarshal(bundle, &b); err != nil {
			panic(err)
		}
		change(b)
		out, err := json.Marshal(b)
		if err != nil {
			panic(err)
		}
		return m, out
	}
}

// at returns the object at a path of the bundle; a number is an index.
func at(b map[string]any, path ...string) map[string]any {
	for _, p := range path {
		switch v := b[p].(type) {
		case map[string]any:
			b = v
		case []any:
			b = v[0].(map[string]any)
		default:
			panic("no " + p)
		}
	}
	return b
}

// flipped is base64 with the last bit of its bytes changed.
func flipped(v any) string {
	b, err := base64.StdEncoding.DecodeString(v.(string))
	if err != nil {
		panic(err)
	}
	b[len(b)-1] ^= 1
	return base64.StdEncoding.EncodeToString(b)
}

var (
	of2015 = sync.OnceValue(func() *fakesig.Instance { return fakesig.New(time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)) })
	of2039 = sync.OnceValue(func() *fakesig.Instance { return fakesig.New(time.Date(2039, 1, 1, 0, 0, 0, 0, time.UTC)) })
)

func legacyOf(m, b []byte) ([]byte, []byte) {
	l, err := fakesig.Legacy(b)
	if err != nil {
		panic(err)
	}
	return m, l
}

func cases() []verification {
	sharedRow, legacyRow, selfHosted := row, row, row
	sharedRow.SignerWorkflow, sharedRow.SignerRef = "https://github.com/acme/shared/.github/workflows/sign.yml", "refs/heads/main"
	legacyRow.Legacy = true
	selfHosted.Runner = "self-hosted"
	noIDs := row
	noIDs.RepositoryID, noIDs.OwnerID = "", ""
	elsewhere := verify.Signer{Issuer: "https://x", Repository: "https://x/y", Workflow: "z", Ref: "refs/tags/v*"}
	const signYML = ".github/workflows/sign.yml"
	reusable := claims().Reusable("acme/shared", signYML, "refs/heads/main", commit)
	type C = fakesig.Claims
	with := func(f func(*C)) C {
		c := claims()
		f(&c)
		return c
	}
	github := func(repo, workflow, ref string) C { return fakesig.GitHub(repo, workflow, ref, commit) }
	const tag = "refs/tags/v1.5.0"
	day := func(y int) time.Time { return time.Date(y, 6, 1, 12, 0, 0, 0, time.UTC) }
	entry := []string{"verificationMaterial", "tlogEntries"}

	list := []verification{
		{name: "right: rekor v1", ok: true},
		{name: "right: rekor v1 with a timestamp too", opt: fakesig.Opt{TSA: true}, ok: true},
		{name: "right: rekor v2", opt: fakesig.Opt{RekorV2: true}, ok: true},
		{name: "right: the second of two rows", rows: []verify.Signer{elsewhere, row}, ok: true},
		{name: "right: a row without ids", rows: []verify.Signer{noIDs}, ok: true},
		{name: "right: a reusable workflow that the row names", claims: reusable, rows: []verify.Signer{sharedRow}, ok: true},
		{name: "right: a self-hosted runner that the row names", claims: with(func(c *C) { c.RunnerEnvironment = "self-hosted" }), rows: []verify.Signer{selfHosted}, ok: true},
		{name: "right: signed in 2016", by: of2015(), at: day(2016), ok: true},
		{name: "right: signed in 2016, rekor v2", by: of2015(), at: day(2016), opt: fakesig.Opt{RekorV2: true}, ok: true},
		{name: "right: signed in 2040", by: of2039(), at: day(2040), ok: true},
		{name: "right: signed in 2040, rekor v2", by: of2039(), at: day(2040), opt: fakesig.Opt{RekorV2: true}, ok: true},
		{name: "right: legacy, and the row takes it", rows: []verify.Signer{legacyRow}, edit: legacyOf, ok: true},

		// Who signed.
		{name: "repository: a fork", claims: github("mallory/edge", workflow, tag)},
		{name: "repository: with a suffix", claims: github("acme/edge-evil", workflow, tag)},
		{name: "repository: with a prefix", claims: github("evil-acme/edge", workflow, tag)},
		{name: "repository: in capitals", claims: github("Acme/Edge", workflow, tag)},
		{name: "repository: .git", claims: github("acme/edge.git", workflow, tag)},
		{name: "repository: a path further", claims: github("acme/edge/edge", workflow, tag)},
		{name: "repository: another host", claims: with(func(c *C) { c.SourceRepositoryURI = "https://github.com.evil.example/acme/edge" })},
		{name: "repository: made again (its id)", claims: with(func(c *C) { c.SourceRepositoryID = "1" })},
		{name: "owner: made again (its id)", claims: with(func(c *C) { c.SourceRepositoryOwnerID = "1" })},
		{name: "workflow: another one", claims: github(repo, ".github/workflows/ci.yml", tag)},
		{name: "workflow: with a prefix", claims: github(repo, "x/"+workflow, tag)},
		{name: "workflow: with a suffix", claims: github(repo, workflow+"2", tag)},
		{name: "workflow: in capitals", claims: github(repo, ".github/workflows/Release.yml", tag)},
		{name: "workflow: by another way", claims: github(repo, ".github/workflows/../workflows/release.yml", tag)},
		{name: "workflow: with an @", claims: github(repo, workflow+"@"+tag, tag)},
		{name: "ref: a branch", claims: github(repo, workflow, "refs/heads/v1.5.0")},
		{name: "ref: a branch named like a tag", claims: github(repo, workflow, "refs/heads/refs/tags/v1.5.0")},
		{name: "ref: with a prefix", claims: github(repo, workflow, "x/refs/tags/v1.5.0")},
		{name: "ref: with a slash", claims: github(repo, workflow, "refs/tags/v1.5.0/x")},
		{name: "ref: with a newline", claims: with(func(c *C) { c.SourceRepositoryRef += "\nx" })},
		{name: "ref: not of ASCII", claims: with(func(c *C) { c.SourceRepositoryRef += "é" })},
		{name: "ref: the stem alone", claims: github(repo, workflow, "refs/tags/v")},
		{name: "ref: a pull request", claims: github(repo, workflow, "refs/pull/1/merge")},
		{name: "ref: not of the manifest's version", claims: github(repo, workflow, "refs/tags/v1.5.1")},
		{name: "ref: more than the manifest's version", claims: github(repo, workflow, "refs/tags/v1.5.0-rc.1")},
		{name: "runner: self-hosted", claims: with(func(c *C) { c.RunnerEnvironment = "self-hosted" })},
		{name: "issuer: another", claims: with(func(c *C) { c.Issuer = "https://gitlab.com" })},
		{name: "issuer: with a slash", claims: with(func(c *C) { c.Issuer += "/" })},
		{name: "issuer: of an enterprise", claims: with(func(c *C) { c.Issuer += "/acme" })},
		{name: "build config: another", claims: with(func(c *C) { c.BuildConfigURI += "x" })},
		{name: "build signer: another", claims: with(func(c *C) { c.BuildSignerURI += "x" })},
		{name: "subject: another", claims: with(func(c *C) { c.SAN += "x" })},
		{name: "reusable: that no row names", claims: reusable},
		{name: "reusable: called by another repository", claims: github("mallory/edge", workflow, tag).Reusable("acme/shared", signYML, "refs/heads/main", commit), rows: []verify.Signer{sharedRow}},
		{name: "reusable: called by another workflow of ours", claims: github(repo, ".github/workflows/ci.yml", tag).Reusable("acme/shared", signYML, "refs/heads/main", commit), rows: []verify.Signer{sharedRow}},
		{name: "reusable: ours, called by another repository", claims: github("mallory/edge", ".github/workflows/x.yml", tag).Reusable(repo, workflow, tag, commit)},
		{name: "reusable: ours, called by another workflow of ours", claims: github(repo, ".github/workflows/ci.yml", tag).Reusable(repo, workflow, tag, commit)},
		{name: "reusable: a foreign one", claims: claims().Reusable("mallory/shared", signYML, "refs/heads/main", commit), rows: []verify.Signer{sharedRow}},
		{name: "reusable: of another ref", claims: claims().Reusable("acme/shared", signYML, "refs/heads/evil", commit), rows: []verify.Signer{sharedRow}},
		{name: "two rows, half of each", claims: with(func(c *C) { c.SourceRepositoryID = "1" }), rows: []verify.Signer{elsewhere, row}},
		{name: "missing: issuer", claims: with(func(c *C) { c.Issuer = "" })},
		{name: "missing: build signer", claims: with(func(c *C) { c.BuildSignerURI = "" })},
		{name: "missing: runner", claims: with(func(c *C) { c.RunnerEnvironment = "" })},
		{name: "missing: source repository", claims: with(func(c *C) { c.SourceRepositoryURI = "" })},
		{name: "missing: source ref", claims: with(func(c *C) { c.SourceRepositoryRef = "" })},
		{name: "missing: repository id", claims: with(func(c *C) { c.SourceRepositoryID = "" })},
		{name: "missing: owner id", claims: with(func(c *C) { c.SourceRepositoryOwnerID = "" })},
		{name: "missing: build config", claims: with(func(c *C) { c.BuildConfigURI = "" })},
		{name: "missing: all extensions", claims: C{SAN: claims().SAN}},

		// The certificate.
		{name: "certificate: of a foreign authority, logged here", opt: fakesig.Opt{CAFrom: foreign()}},
		{name: "certificate: no SCT", opt: fakesig.Opt{NoSCT: true}},
		{name: "certificate: the SCT of a foreign log", opt: fakesig.Opt{CTFrom: foreign()}},
		{name: "certificate: a bit changed", edit: edited(func(b map[string]any) {
			c := at(b, "verificationMaterial", "certificate")
			c["rawBytes"] = flipped(c["rawBytes"])
		})},
		{name: "certificate: a chain", edit: edited(func(b map[string]any) {
			vm := at(b, "verificationMaterial")
			vm["x509CertificateChain"] = map[string]any{"certificates": []any{vm["certificate"]}}
			delete(vm, "certificate")
		})},
		{name: "certificate: a bare key", edit: edited(func(b map[string]any) {
			vm := at(b, "verificationMaterial")
			delete(vm, "certificate")
			vm["publicKey"] = map[string]any{"hint": "x"}
		})},
		{name: "certificate: none", edit: edited(func(b map[string]any) { delete(at(b, "verificationMaterial"), "certificate") })},

		// The log.
		{name: "log: no entry", opt: fakesig.Opt{NoLog: true}},
		{name: "log: a foreign instance", by: foreign()},
		{name: "log: bad proof", opt: fakesig.Opt{BadProof: true}},
		{name: "log: bad proof, v2", opt: fakesig.Opt{BadProof: true, RekorV2: true}},
		{name: "log: no proof", edit: edited(func(b map[string]any) { delete(at(b, entry...), "inclusionProof") })},
		{name: "log: no checkpoint", edit: edited(func(b map[string]any) { delete(at(b, append(entry, "inclusionProof")...), "checkpoint") })},
		{name: "log: a checkpoint of another tree", edit: edited(func(b map[string]any) {
			c := at(b, append(entry, "inclusionProof", "checkpoint")...)
			c["envelope"] = strings.Replace(c["envelope"].(string), "\n5\n", "\n6\n", 1)
		})},
		{name: "log: a checkpoint without its signature", opt: fakesig.Opt{RekorV2: true}, edit: edited(func(b map[string]any) {
			c := at(b, append(entry, "inclusionProof", "checkpoint")...)
			text, _, _ := strings.Cut(c["envelope"].(string), "\n\n")
			c["envelope"] = text + "\n\n"
		})},
		{name: "log: another index", edit: edited(func(b map[string]any) { at(b, append(entry, "inclusionProof")...)["logIndex"] = "3" })},
		{name: "log: another log's id", edit: edited(func(b map[string]any) {
			id := at(b, append(entry, "logId")...)
			id["keyId"] = flipped(id["keyId"])
		})},
		{name: "log: another body", edit: edited(func(b map[string]any) {
			e := at(b, entry...)
			e["canonicalizedBody"] = flipped(e["canonicalizedBody"])
		})},
		{name: "log: three entries", edit: edited(func(b map[string]any) {
			vm := at(b, "verificationMaterial")
			es := vm["tlogEntries"].([]any)
			vm["tlogEntries"] = append(es, es[0], es[0])
		})},
		{name: "log: a thousand entries", edit: edited(func(b map[string]any) {
			vm := at(b, "verificationMaterial")
			es := vm["tlogEntries"].([]any)
			for range 999 {
				vm["tlogEntries"] = append(vm["tlogEntries"].([]any), es[0])
			}
		})},
		{name: "log: the entry of another release", edit: func(m, bundle []byte) ([]byte, []byte) {
			other, err := instance().Sign([]byte("another"), claims(), signedAt, fakesig.Opt{})
			if err != nil {
				panic(err)
			}
			var o map[string]any
			if err := json.Unmarshal(other, &o); err != nil {
				panic(err)
			}
			return edited(func(b map[string]any) {
				at(b, "verificationMaterial")["tlogEntries"] = at(o, "verificationMaterial")["tlogEntries"]
			})(m, bundle)
		}},

		// The time.
		{name: "time: none", opt: fakesig.Opt{NoSET: true}},
		{name: "time: none, v2", opt: fakesig.Opt{RekorV2: true, NoTSA: true}},
		{name: "time: changed", edit: edited(func(b map[string]any) { at(b, entry...)["integratedTime"] = fmt.Sprint(signedAt.Unix() + 6) })},
		{name: "time: after the certificate", opt: fakesig.Opt{LogDelay: time.Hour}},
		{name: "time: before the certificate", opt: fakesig.Opt{LogDelay: -time.Hour}},
		{name: "time: after the certificate, v2", opt: fakesig.Opt{RekorV2: true, LogDelay: time.Hour}},
		{name: "time: before all authorities", at: instanceStart.Add(-48 * time.Hour)},
		{name: "time: of a foreign timestamp authority", opt: fakesig.Opt{RekorV2: true, TSAFrom: foreign()}},
		{name: "time: three timestamps", opt: fakesig.Opt{RekorV2: true}, edit: edited(func(b map[string]any) {
			d := at(b, "verificationMaterial", "timestampVerificationData")
			ts := d["rfc3161Timestamps"].([]any)
			d["rfc3161Timestamps"] = append(ts, ts[0], ts[0])
		})},
		{name: "time: a timestamp with a bit changed", opt: fakesig.Opt{RekorV2: true}, edit: edited(func(b map[string]any) {
			ts := at(b, "verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")
			ts["signedTimestamp"] = flipped(ts["signedTimestamp"])
		})},

		// What is signed.
		{name: "signature: over other bytes", opt: fakesig.Opt{BadSignature: true}},
		{name: "signature: a bit changed", edit: edited(func(b map[string]any) {
			s := at(b, "messageSignature")
			s["signature"] = flipped(s["signature"])
		})},
		{name: "signature: another digest", edit: edited(func(b map[string]any) {
			d := at(b, "messageSignature", "messageDigest")
			d["digest"] = flipped(d["digest"])
		})},
		{name: "manifest: changed", edit: func(m, b []byte) ([]byte, []byte) {
			return bytes.Replace(m, []byte(`"sequence":1`), []byte(`"sequence":2`), 1), b
		}},
		{name: "manifest: a space more", edit: func(m, b []byte) ([]byte, []byte) { return append(m, ' '), b }},
		{name: "manifest: of another release", edit: func(m, b []byte) ([]byte, []byte) {
			return bytes.ReplaceAll(m, []byte("1.5.0"), []byte("1.4.0")), b
		}},
		{name: "manifest: empty", edit: func(m, b []byte) ([]byte, []byte) { return nil, b }},
		{name: "manifest: too large", edit: func(m, b []byte) ([]byte, []byte) { return append(m, make([]byte, release.MaxManifest)...), b }},
		{name: "manifest: 10 MB", edit: func(m, b []byte) ([]byte, []byte) { return make([]byte, 10<<20), b }},

		// The form of the bundle.
		{name: "bundle: empty", edit: func(m, b []byte) ([]byte, []byte) { return m, nil }},
		{name: "bundle: no JSON", edit: func(m, b []byte) ([]byte, []byte) { return m, []byte("hello\nworld") }},
		{name: "bundle: an empty object", edit: func(m, b []byte) ([]byte, []byte) { return m, []byte("{}") }},
		{name: "bundle: truncated", edit: func(m, b []byte) ([]byte, []byte) { return m, b[:len(b)/2] }},
		{name: "bundle: too large", edit: func(m, b []byte) ([]byte, []byte) {
			return m, append(b, bytes.Repeat([]byte(" "), verify.MaxBundle)...)
		}},
		{name: "bundle: 10 MB", edit: func(m, b []byte) ([]byte, []byte) { return m, bytes.Repeat([]byte("["), 10<<20) }},
		{name: "bundle: an unknown field", edit: edited(func(b map[string]any) { b["more"] = "x" })},
		{name: "bundle: v0.1", opt: fakesig.Opt{NoProof: true}},
		{name: "bundle: v0.2", edit: edited(func(b map[string]any) {
			b["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"
			vm := at(b, "verificationMaterial")
			vm["x509CertificateChain"] = map[string]any{"certificates": []any{vm["certificate"]}}
			delete(vm, "certificate")
		})},
		{name: "bundle: v9", edit: edited(func(b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle.v9+json" })},
		{name: "bundle: no media type", edit: edited(func(b map[string]any) { delete(b, "mediaType") })},
		{name: "bundle: a DSSE envelope", edit: edited(func(b map[string]any) {
			s := at(b, "messageSignature")
			b["dsseEnvelope"] = map[string]any{"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []any{map[string]any{"sig": s["signature"]}}}
			delete(b, "messageSignature")
		})},

		// cosign 2's JSON.
		{name: "legacy: no row takes it", edit: legacyOf},
		{name: "legacy: only another row takes it", rows: []verify.Signer{row, func() verify.Signer { e := elsewhere; e.Legacy = true; return e }()}, edit: legacyOf},
		{name: "legacy: a fork", claims: github("mallory/edge", workflow, tag), rows: []verify.Signer{legacyRow}, edit: legacyOf},
		{name: "legacy: a foreign instance", by: foreign(), rows: []verify.Signer{legacyRow}, edit: legacyOf},
		{name: "legacy: the manifest changed", rows: []verify.Signer{legacyRow}, edit: func(m, b []byte) ([]byte, []byte) {
			_, l := legacyOf(m, b)
			return append(m, ' '), l
		}},
		{name: "legacy: time after the certificate", opt: fakesig.Opt{LogDelay: time.Hour}, rows: []verify.Signer{legacyRow}, edit: legacyOf},
		{name: "legacy: no SCT", opt: fakesig.Opt{NoSCT: true}, rows: []verify.Signer{legacyRow}, edit: legacyOf},
		{name: "legacy: another time", rows: []verify.Signer{legacyRow}, edit: func(m, b []byte) ([]byte, []byte) {
			_, l := legacyOf(m, b)
			return edited(func(b map[string]any) {
				at(b, "rekorBundle", "Payload")["integratedTime"] = signedAt.Unix() + 6
			})(m, l)
		}},
		{name: "legacy: no certificate", rows: []verify.Signer{legacyRow}, edit: func(m, b []byte) ([]byte, []byte) {
			_, l := legacyOf(m, b)
			return edited(func(b map[string]any) { delete(b, "cert") })(m, l)
		}},
		{name: "legacy: no log entry", rows: []verify.Signer{legacyRow}, edit: func(m, b []byte) ([]byte, []byte) {
			_, l := legacyOf(m, b)
			return edited(func(b map[string]any) { delete(b, "rekorBundle") })(m, l)
		}},
		{name: "legacy: 10 MB", rows: []verify.Signer{legacyRow}, edit: func(m, b []byte) ([]byte, []byte) {
			return m, append([]byte(`{"base64Signature":"`), make([]byte, 10<<20)...)
		}},
	}
	for i := range list {
		c := &list[i]
		if c.claims == (fakesig.Claims{}) {
			c.claims = claims()
		}
		if c.by == nil {
			c.by = instance()
		}
		if c.at.IsZero() {
			c.at = signedAt
		}
		if c.rows == nil {
			c.rows = []verify.Signer{row}
		}
	}
	return list
}
