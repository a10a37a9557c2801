package agent

import (
	"os"
	"runtime"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
)

func TestMain(m *testing.M) {
	// Each request looks at every file of the CA store. The first one, with all authorities, is enough here.
	os.Setenv("SSL_CERT_DIR", os.DevNull)
	box.AtOnce(4 * runtime.GOMAXPROCS(0)) // they mostly wait
	os.Exit(m.Run())
}
