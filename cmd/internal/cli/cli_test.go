package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

const hostile = "a\x1b]52;c;ZXZpbA==\x07\x1b[2Kb\u009b2J\u202ec\r\nroot: all is well\x00"

// An error is printed without control characters, and only its first line begins a
// line.
func TestErrorsAreHarmlessOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	code := Run(t.Context(), &cobra.Command{Use: "root", Args: ExactArgs(0), RunE: func(*cobra.Command, []string) error {
		return Exit(Refused, fmt.Errorf("act: %w", errors.Join(errors.New(hostile), errors.New("second"))))
	}}, nil, &out, &out)
	if want := "root: act: a?]52;c;ZXZpbA==??[2Kb?2J?c \n  root: all is well?\n  second\n"; code != Refused || out.String() != want {
		t.Errorf("exit code %d, %q", code, out.String())
	}
}

// A command that the kernel denies a file says what refuses it.
func TestADenialIsNamed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	code := Run(t.Context(), &cobra.Command{Use: "root", Args: ExactArgs(0), RunE: func(*cobra.Command, []string) error {
		return fmt.Errorf("config: %w", &fs.PathError{Op: "open", Path: file, Err: syscall.EACCES})
	}}, nil, &out, &out)
	if code != Failed || !strings.Contains(out.String(), "permission denied: the modes and the mount allow it, so mandatory access control refuses it") {
		t.Errorf("%d, %q", code, out.String())
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{
		OK: nil, Failed: errors.New("x"), Misuse: fmt.Errorf("y: %w", Usage(errors.New("x"))), RolledBack: Exit(RolledBack, errors.New("x")),
		TimedOut: fmt.Errorf("y: %w", Exit(TimedOut, errors.New("x"))), Unreachable: Exit(Unreachable, Exit(Refused, errors.New("x"))),
	} {
		var out bytes.Buffer
		if code := Run(t.Context(), &cobra.Command{Use: "root", Args: ExactArgs(0), RunE: func(*cobra.Command, []string) error { return err }}, nil, &out, &out); code != want {
			t.Errorf("%v: exit code %d, want %d", err, code, want)
		}
	}
}

// A log on a terminal has no control characters.
func TestConsoleIsHarmlessOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := console(&out)
	w.NoColor = true
	log := zerolog.New(w)
	log.Error().Str("field", hostile).Err(errors.New(hostile)).Strs("list", []string{hostile}).Msg(hostile)
	log.Info().Interface("any", map[string]string{hostile: hostile}).Msg("")
	if lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"); len(lines) != 2 {
		t.Errorf("%d lines: %q", len(lines), out.String())
	}
	if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%q", out.String()[i:])
	}
}
