// Command notebook is a service with data, for tests of releases that migrate them. Its data are
// a number, the schema, in the file notebook of its install root. Version 1.0.0 knows schema 1,
// each other version schema 2 as well. The environment says how it behaves, for all versions:
//
//	NOTEBOOK=saves     it saves its data before a trial, and restores them after a rollback
//	NOTEBOOK=full      it cannot save its data before a trial
//	NOTEBOOK_1_1=early 1.1.0 migrates its data when it starts, and then fails
//	NOTEBOOK_1_1=kept  1.1.0 migrates its data once it is kept
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/daemon"
	"github.com/bilbycast/edge-agent/verify"
)

var version = "0.0.0-dev"

var file string // of the data

func main() {
	how := os.Getenv("NOTEBOOK_1_1")
	if version != "1.1.0" {
		how = ""
	}
	o := agent.Options{
		Version: version,
		Signers: []verify.Signer{{Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/notebook", Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*"}},
		Serve: func(ctx context.Context, a *agent.Agent) error {
			if how == "early" {
				return errors.Join(migrate(), errors.New("a fault after the migration"))
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if schema := strings.TrimSpace(string(b)); schema != "1" && version == "1.0.0" {
				return fmt.Errorf("schema %q of the data is not known", schema)
			}
			a.Ready()
			<-ctx.Done()
			return nil
		},
	}
	if how == "kept" {
		o.Kept = func(context.Context, agent.Change) error { return migrate() }
	}
	switch os.Getenv("NOTEBOOK") {
	case "full":
		o.BeforeTrial = func(context.Context, agent.Change) error { return errors.New("the disk for backups is full") }
	case "saves":
		o.BeforeTrial = func(context.Context, agent.Change) error { return copyFile(file+".saved", file) }
		o.RolledBack = func(context.Context, agent.Change) error { return copyFile(file, file+".saved") }
	}
	daemon.Main(daemon.Options{Name: "notebook", Agent: o, Open: func(path string) (config.Settings, config.Warnings, error) {
		file = filepath.Join(filepath.Dir(path), "notebook")
		return config.Open(path)
	}})
}

func migrate() error { return os.WriteFile(file, []byte("2\n"), 0o600) }

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	return err
}
