package agent

import (
	"os"
	"runtime"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
)

func TestMain(m *testing.M) {
	box.AtOnce(2 * runtime.GOMAXPROCS(0)) // they mostly wait
	os.Exit(m.Run())
}
