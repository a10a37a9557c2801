// Command recorder is a service with arguments, a directory and a device of its own, for tests of
// its unit. When it starts, it writes its arguments to /var/lib/recorder/VERSION, as JSON, and a
// byte to /dev/recorder.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/daemon"
	"github.com/bilbycast/edge-agent/verify"
)

var version = "0.0.0-dev"

func main() {
	flags := flag.NewFlagSet("recorder", flag.ContinueOnError)
	flags.Func("title", "any text", func(string) error { return nil })
	daemon.Main(daemon.Options{Name: "recorder", Flags: flags, Agent: agent.Options{
		Version: version, Serve: serve,
		Signers: []verify.Signer{{Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/recorder", Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*"}},
	}})
}

func serve(ctx context.Context, a *agent.Agent) error {
	args, err := json.Marshal(os.Args[1:])
	if err == nil {
		err = os.WriteFile("/var/lib/recorder/"+version, args, 0o600)
	}
	if err != nil {
		return err
	}
	device, err := os.OpenFile("/dev/recorder", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = device.Write([]byte{0})
	if err := errors.Join(err, device.Close()); err != nil {
		return err
	}
	a.Ready()
	<-ctx.Done()
	return nil
}
