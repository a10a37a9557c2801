package main

import (
	"testing"

	"github.com/bilbycast/edge-agent/internal/reference"
)

func TestReferenceOfTheCommands(t *testing.T) {
	t.Parallel()
	text, err := reference.Commands(newRootCmd())
	if err != nil {
		t.Fatal(err)
	}
	reference.Check(t, "../..", "manager-sim.md", text)
}
