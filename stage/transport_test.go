package stage

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/cert"
)

// A renewed CA store counts after a second. Until then the requests of an upgrade do not look at
// its files again.
func TestTheCAStoreIsLookedAtNowAndThen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.pem")
	t.Setenv("SSL_CERT_FILE", file)
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	synctest.Test(t, func(t *testing.T) {
		var tr transport
		first := tr.authorities()
		write("renewed, and longer")
		time.Sleep(lookEvery - time.Nanosecond)
		if tr.authorities() != first {
			t.Error("the store is looked at again within a second")
		}
		time.Sleep(time.Nanosecond)
		if now := tr.authorities(); now == first || now != cert.System() {
			t.Error("a second later the store is still the old one")
		}
	})
}
