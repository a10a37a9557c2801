package daemon

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/verify"
)

const good = `[service]
name = "player"
device_type = "player"
binary = "player"
[manager]
urls = []
`

func options() Options {
	return Options{Name: "player", Agent: agent.Options{Version: "1.2.3", Log: slog.New(slog.DiscardHandler), Signers: []verify.Signer{{
		Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/player", Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*",
	}}}}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each command prints what its users expect, and ends with their exit code.
func TestCommands(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for name, tt := range map[string]struct {
		args []string
		code int
		says string // on standard output, or in the error
	}{
		"version":                   {[]string{"version"}, 0, "player 1.2.3"},
		"version as a flag":         {[]string{"--version"}, 0, "player 1.2.3"},
		"help":                      {[]string{"help"}, 0, "player config check FILE"},
		"nothing":                   {nil, 2, "usage:"},
		"an unknown command":        {[]string{"upgrade"}, 2, `unknown command "upgrade"`},
		"a good configuration":      {[]string{"config", "check", write(t, good)}, 0, "is good"},
		"a wrong configuration":     {[]string{"config", "check", write(t, good+"[upgrade]\ndrain_secs = -1\n")}, 1, "drain_secs"},
		"no configuration":          {[]string{"config", "check"}, 2, "config check FILE"},
		"a missing configuration":   {[]string{"config", "check", filepath.Join(empty, "none")}, 1, "none"},
		"probe without a file":      {[]string{"probe"}, 2, "probe --config FILE"},
		"probe with a wrong flag":   {[]string{"probe", "--colour"}, 2, "-colour"},
		"run without a file":        {[]string{"run"}, 2, "--config is missing"},
		"run with an argument":      {[]string{"run", "--config", "x", "y"}, 2, `unexpected argument "y"`},
		"run with an unknown flag":  {[]string{"run", "--colour", "x"}, 2, "colour"},
		"run with a missing file":   {[]string{"run", "--config", filepath.Join(empty, "none")}, 1, "none"},
		"watchdog without a root":   {[]string{"watchdog"}, 2, "--root is missing"},
		"watchdog of no root":       {[]string{"watchdog", "--root", "relative"}, 2, "relative"},
		"watchdog before and after": {[]string{"watchdog", "--root", empty, "--before", "a", "--after", "b"}, 2, "exclude"},
		"watchdog of an empty root": {[]string{"watchdog", "--root", empty}, 0, ""},
		"nothing to repeat":         {[]string{"watchdog", "--root", empty, "--after", "player.service"}, 1, ""},
		"rescue":                    {[]string{"rescue", "--root", empty}, 0, ""},
		"rescue with a wrong flag":  {[]string{"rescue", "--root", empty, "--before", "a"}, 2, "before"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			o := options()
			err := Command(t.Context(), o, tt.args, &out)
			text := out.String()
			if err != nil {
				text += err.Error()
			}
			if code := ExitCode(err); code != tt.code || !strings.Contains(text, tt.says) {
				t.Errorf("exit code %d: %s", code, text)
			}
		})
	}
}

// The error of Command tells a program with commands of its own which are not for this package.
func TestUnknownCommand(t *testing.T) {
	t.Parallel()
	if err := Command(t.Context(), options(), []string{"import"}, io.Discard); !errors.Is(err, ErrUnknownCommand) {
		t.Error(err)
	}
}

// The service's own flags and its own file are read before it serves.
func TestOwnFlagsAndFile(t *testing.T) {
	t.Parallel()
	o := options()
	o.Flags = flag.NewFlagSet("player", flag.ContinueOnError)
	port := o.Flags.Int("port", 80, "where it listens")
	stop := errors.New("it was read")
	o.Open = func(path string) (config.Settings, config.Warnings, error) {
		if path != "own.json" || *port != 8080 {
			t.Errorf("%s, port %d", path, *port)
		}
		return config.Settings{}, config.Warnings{}, stop
	}
	if err := Command(t.Context(), o, []string{"run", "--port", "8080", "--config", "own.json"}, io.Discard); !errors.Is(err, stop) {
		t.Error(err)
	}
	o.Flags.String("config", "", "its own file")
	if err := Command(t.Context(), o, []string{"run", "--config", "own.json"}, io.Discard); err == nil || !strings.Contains(err.Error(), "a flag named config") {
		t.Error(err)
	}
	var out bytes.Buffer
	if err := Command(t.Context(), o, []string{"help"}, &out); err != nil || !strings.Contains(out.String(), "where it listens") {
		t.Errorf("%v: %s", err, &out)
	}
}

// A program without a name has that of its file.
func TestAProgramWithoutAName(t *testing.T) {
	t.Parallel()
	o := options()
	o.Name = ""
	var out bytes.Buffer
	if err := Command(t.Context(), o, []string{"version"}, &out); err != nil || out.String() != filepath.Base(os.Args[0])+" 1.2.3"+verify.VersionSuffix+"\n" {
		t.Errorf("%v: %s", err, &out)
	}
}
