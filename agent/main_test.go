package agent

import (
	"os"
	"runtime"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
)

func TestMain(m *testing.M) {
	// Each request looks at the CA store: at one file is enough here, and not at one for each authority.
	os.Setenv("SSL_CERT_DIR", os.DevNull)
	box.AtOnce(4 * runtime.GOMAXPROCS(0)) // they mostly wait
	os.Exit(m.Run())
}
