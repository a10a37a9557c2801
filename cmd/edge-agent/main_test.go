package main

import (
	"fmt"
	"testing"

	"github.com/bilbycast/edge-agent/verify"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"edge-agent": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true,
		Condition: func(cond string) (bool, error) {
			if cond == "sim" {
				return verify.Simulation, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
	})
}
