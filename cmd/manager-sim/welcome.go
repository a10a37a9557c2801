package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// welcome is the output of `serve` when it is ready.
type welcome struct {
	dir, url, host, fingerprint string
	claim                       string // secret for the first administrator; "" if one exists
	demo                        *demoFleet
}

// print prints the addresses, and only files that exist. The link for the first
// administrator is a separate block before the log.
func (w welcome) print(out io.Writer) {
	at := ""
	if w.dir != defaultDir {
		at = " --dir " + w.dir
	}
	fmt.Fprintf(out, `manager      %[1]s
pages        %[1]s/admin/nodes
releases     %[2]s
admin token  in %[3]s

For the config.toml of your own node:
  urls = ["wss%[4]s"]
  registration_token: in %[5]s
  cert_fingerprint = %[6]q
`, w.url, w.host, filepath.Join(w.dir, "admin.token"), strings.TrimPrefix(w.url, "https"), filepath.Join(w.dir, "registration.token"), w.fingerprint)
	trust := fakerelease.TrustDir(releasesUnder(w.dir))
	if _, err := os.Stat(filepath.Join(trust, "trusted_root.json")); err == nil {
		fmt.Fprintf(out, "For the environment of its program, which must be a simulation build:\n  EDGE_AGENT_SIM_TRUST=%s\nOr run a node from a published release: manager-sim node run%s\n", absolute(trust), at)
	} else {
		fmt.Fprintf(out, "No releases are published yet. Publish one: manager-sim release publish%s --version 1.0.0\n", at)
	}
	if w.demo.nodes > 0 {
		fmt.Fprintf(out, "\nDemo fleet: %s in the group %q, %s\n", nodeCount(w.demo.nodes), demoGroup, w.demo)
	}
	if w.claim != "" {
		fmt.Fprintf(out, "\nCreate the first administrator: %s/admin/claim?token=%s  (works once)\n\n", w.url, w.claim)
	}
}

// writeFileAtomically replaces a file by rename. Readers see the old or the new file, also
// after a crash of this process.
func writeFileAtomically(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
