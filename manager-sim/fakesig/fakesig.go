// Package fakesig is a complete Sigstore in one file on disk, for fake releases: Fulcio
// with a root and an intermediate, a CT log, Rekor v1 (signed entry timestamp, inclusion
// proof, checkpoint), Rekor v2 (tile log) and an RFC 3161 timestamp authority. The
// caller chooses the time of each signature. Cosign v3 accepted its bundles offline.
//
// The package is for tests and manager-sim. The agent does not link it (a test checks
// that), and a production agent does not trust it.
package fakesig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"time"

	pcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	ptrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	tilesnote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// URLs of the instance's services; nothing serves them.
const (
	rekor1URL = "https://rekor.fake.test"
	rekor2URL = "https://log1.rekor.fake.test"
)

// Instance is one Sigstore. It is safe for concurrent use.
type Instance struct {
	start            time.Time
	root, inter      ca
	tsaRoot, tsaLeaf ca
	ct, rekor1       *ecdsa.PrivateKey
	rekor2           ed25519.PrivateKey
}

type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// must panics on an error. It wraps operations on keys and structures of this package,
// which fail only because of a defect here.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("fakesig: %v", err))
	}
	return v
}

const tenYears = 10 * 365 * 24 * time.Hour

// New returns an instance whose authorities and logs are valid for ten years from
// start.
func New(start time.Time) *Instance {
	start = start.UTC().Truncate(time.Second)
	i := &Instance{start: start}
	i.root = newCA(template{cn: "fake-fulcio-root", start: start, life: tenYears, isCA: true}, nil, elliptic.P384())
	i.inter = newCA(template{cn: "fake-fulcio-intermediate", start: start, life: tenYears, isCA: true,
		eku: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}, &i.root, elliptic.P384())
	// The PKCS#7 library writes a signingTime from the real clock, and requires it inside
	// the certificate's validity. So these are valid for 200 years from 1960 on.
	tsa := time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)
	i.tsaRoot = newCA(template{cn: "fake-tsa-root", start: tsa, life: 20 * tenYears, isCA: true}, nil, elliptic.P384())
	eku := must(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}))
	i.tsaLeaf = newCA(template{cn: "fake-tsa", start: tsa, life: 20 * tenYears,
		extra: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: eku}}}, // RFC 3161: critical
		&i.tsaRoot, elliptic.P256())
	i.ct = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	i.rekor1 = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, i.rekor2, _ = ed25519.GenerateKey(rand.Reader)
	return i
}

type template struct {
	cn    string
	start time.Time
	life  time.Duration
	isCA  bool
	eku   []x509.ExtKeyUsage
	extra []pkix.Extension
}

func serial() *big.Int {
	return must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))
}

func newCA(t template, parent *ca, curve elliptic.Curve) ca {
	key := must(ecdsa.GenerateKey(curve, rand.Reader))
	c := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: t.cn, Organization: []string{"fake.sigstore.test"}},
		NotBefore: t.start, NotAfter: t.start.Add(t.life), BasicConstraintsValid: true, IsCA: t.isCA,
		ExtKeyUsage: t.eku, ExtraExtensions: t.extra, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if t.isCA {
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	by, signer := c, key
	if parent != nil {
		by, signer = parent.cert, parent.key
	}
	der := must(x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer))
	return ca{must(x509.ParseCertificate(der)), key}
}

func spki(pub crypto.PublicKey) []byte { return must(x509.MarshalPKIXPublicKey(pub)) }

func keyID(pub crypto.PublicKey) []byte {
	s := sha256.Sum256(spki(pub))
	return s[:]
}

func (i *Instance) rekor2ID() []byte {
	_, id, err := tilesnote.KeyHash(hostname(rekor2URL), i.rekor2.Public())
	return must(id, err)
}

func hostname(u string) string { return must(url.Parse(u)).Hostname() }

// TrustedRoot returns the instance's trusted_root.json.
func (i *Instance) TrustedRoot() ([]byte, error) {
	valid := &pcommon.TimeRange{Start: timestamppb.New(i.start)}
	log := func(u string, pub crypto.PublicKey, d pcommon.PublicKeyDetails, id []byte) *ptrust.TransparencyLogInstance {
		return &ptrust.TransparencyLogInstance{
			BaseUrl: u, HashAlgorithm: pcommon.HashAlgorithm_SHA2_256, LogId: &pcommon.LogId{KeyId: id},
			PublicKey: &pcommon.PublicKey{RawBytes: spki(pub), KeyDetails: d, ValidFor: valid},
		}
	}
	authority := func(u string, chain ...*x509.Certificate) *ptrust.CertificateAuthority {
		ch := &pcommon.X509CertificateChain{}
		for _, c := range chain {
			ch.Certificates = append(ch.Certificates, &pcommon.X509Certificate{RawBytes: c.Raw})
		}
		top := chain[len(chain)-1].Subject
		return &ptrust.CertificateAuthority{Uri: u, CertChain: ch, ValidFor: valid,
			Subject: &pcommon.DistinguishedName{CommonName: top.CommonName, Organization: top.Organization[0]}}
	}
	const p256 = pcommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
	return protojson.Marshal(&ptrust.TrustedRoot{
		MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		Tlogs: []*ptrust.TransparencyLogInstance{
			log(rekor1URL, i.rekor1.Public(), p256, keyID(i.rekor1.Public())),
			log(rekor2URL, i.rekor2.Public(), pcommon.PublicKeyDetails_PKIX_ED25519, i.rekor2ID()),
		},
		Ctlogs:                 []*ptrust.TransparencyLogInstance{log("https://ctfe.fake.test", i.ct.Public(), p256, keyID(i.ct.Public()))},
		CertificateAuthorities: []*ptrust.CertificateAuthority{authority("https://fulcio.fake.test", i.inter.cert, i.root.cert)},
		TimestampAuthorities:   []*ptrust.CertificateAuthority{authority("https://timestamp.fake.test/api/v1/timestamp", i.tsaLeaf.cert, i.tsaRoot.cert)},
	})
}
