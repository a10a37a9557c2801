package cert

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Every way in which an administrator renews the CA store counts at the next connection, and
// a store that does not change is not read again.
func TestTheCAStoreIsRenewed(t *testing.T) {
	begin, end := day(2020, 1), day(2060, 1)
	before, after := newParty(t, "before", begin, end, true, nil), newParty(t, "after", begin, end, true, nil)
	trusts := func(p party) bool {
		t.Helper()
		server := newParty(t, "manager.example", begin, end, false, &p)
		for _, year := range []int{2030, 1970} { // and by a clock that is not set
			conf := &tls.Config{ServerName: "manager.example"}
			System().Client(conf, NewClock(func() time.Time { return day(year, 1) }, time.Time{}, ""), nil)
			if handshake(t, conf, server) != nil {
				return false
			}
		}
		return true
	}
	write := func(path string, p ...party) {
		t.Helper()
		var text []byte
		for _, p := range p {
			text = append(text, p.pem()...)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(step string, old, renewed bool) {
		t.Helper()
		if trusts(before) != old || trusts(after) != renewed {
			t.Errorf("%s: the old CA counts: %v, the new one: %v", step, !old, !renewed)
		}
	}
	dir := t.TempDir()
	file, certs := filepath.Join(dir, "bundle.pem"), filepath.Join(dir, "certs")
	if err := os.Mkdir(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", certs)
	write(file, before)
	check("at first", true, false)
	if once, again := System(), System(); once != again {
		t.Error("a store that did not change is read again")
	}
	write(file, before, after)
	check("added to the file", true, true)
	write(file+".new", after)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	check("the file was replaced", false, true)
	write(filepath.Join(certs, "more.crt"), before)
	check("a file was added to the directory", true, true)
	write(filepath.Join(certs, "more.crt"), after)
	check("a file of the directory was rewritten", false, true)
	elsewhere := filepath.Join(dir, "elsewhere.crt")
	write(elsewhere, before)
	if err := os.Symlink(elsewhere, filepath.Join(certs, "linked.pem")); err != nil {
		t.Fatal(err)
	}
	check("a link was added", true, true)
	if err := os.Symlink("linked.pem", filepath.Join(certs, "0123abcd.0")); err != nil {
		t.Fatal(err)
	}
	check("a link by digest was added", true, true)
	write(elsewhere, after)
	check("the target of a link was rewritten", false, true)
	if err := os.WriteFile(file, []byte("being written"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("the file is damaged", false, true)
	whole := append(before.pem(), after.pem()...)
	for name, text := range map[string][]byte{
		"a comment":                  append([]byte("# before and after\n"), whole...),
		"a certificate without end":  append(append([]byte{}, whole...), before.pem()[:200]...),
		"\\r\\n":                     bytes.ReplaceAll(whole, []byte("\n"), []byte("\r\n")),
		"the same one several times": append(append([]byte{}, whole...), whole...),
	} {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		check(name, true, true)
	}
}

// A certificate that several files of the store have is parsed once.
func TestACertificateInSeveralFiles(t *testing.T) {
	t.Parallel()
	p, q := newParty(t, "p", day(2020, 1), day(2060, 1), true, nil), newParty(t, "q", day(2020, 1), day(2060, 1), true, nil)
	dir := t.TempDir()
	var files []string
	for name, text := range map[string][]byte{"all": append(p.pem(), q.pem()...), "p": p.pem(), "q": append([]byte("q:\n"), q.pem()...)} {
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(files[len(files)-1], text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var text []byte
	readStore(files, func(more []byte) { text = append(text, more...) })
	if bytes.Count(text, []byte("-----BEGIN")) != 2 {
		t.Errorf("%s", text)
	}
}

// BenchmarkSystem reads the CA store of this system.
func BenchmarkSystem(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		system.state = ""
		System()
	}
}

// Without the environment the store is that of the distribution, as far as there is one.
func TestTheStoreOfThisSystem(t *testing.T) {
	t.Setenv("SSL_CERT_FILE", "")
	t.Setenv("SSL_CERT_DIR", "")
	files, _ := store()
	if len(files) == 0 {
		t.Skip("this system has no CA store")
	}
	if System().pool == nil {
		t.Errorf("nothing in %q is an authority", files)
	}
}
