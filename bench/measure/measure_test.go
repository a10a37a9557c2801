package measure_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/bench/measure"
)

func TestSummarise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []int
		want   measure.Summary[int]
	}{
		{[]int{5}, measure.Summary[int]{Median: 5, Min: 5, Max: 5}},
		{[]int{9, 1}, measure.Summary[int]{Median: 1, Min: 1, Max: 9}},
		{[]int{7, 1, 3}, measure.Summary[int]{Median: 3, Min: 1, Max: 7}},
		{[]int{4, 4, 100, 2}, measure.Summary[int]{Median: 4, Min: 2, Max: 100}},
	} {
		before := append([]int(nil), c.values...)
		if got := measure.Summarise(c.values); got != c.want {
			t.Errorf("Summarise(%v) = %+v, want %+v", c.values, got, c.want)
		}
		for i := range before {
			if before[i] != c.values[i] {
				t.Errorf("Summarise changed its values: %v, before %v", c.values, before)
				break
			}
		}
	}
}

func runner(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "runner")
	if text, err := exec.Command("go", "build", "-o", out, "github.com/bilbycast/edge-agent/bench/runner").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

func TestRun(t *testing.T) {
	t.Parallel()
	bin := runner(t)
	dir := t.TempDir()

	t.Run("counts children", func(t *testing.T) {
		u, err := measure.Run(t.Context(), bin, measure.Command{Dir: dir, Args: []string{"sh", "-c", "dd if=/dev/zero of=f bs=1M count=8 status=none; exit 0"}})
		if err != nil {
			t.Fatal(err)
		}
		if u.Wall <= 0 || u.PeakRSS < 1<<20 || u.PeakRSS > 16<<20 {
			t.Errorf("%+v: dd needs some MiB", u)
		}
		if u.WrittenHow == "" {
			t.Errorf("%+v does not tell how the bytes were counted", u)
		}
	})
	t.Run("begins once the command has started", func(t *testing.T) {
		script := `dd if=/dev/zero of=$1 bs=1M count=8 status=none; echo ready; [ "$2" = false ] || read x; dd if=/dev/zero of=$1 bs=1M count=1 status=none`
		written := map[bool]int64{}
		for _, started := range []bool{false, true} {
			file := filepath.Join(t.TempDir(), "f")
			u, err := measure.Run(t.Context(), bin, measure.Command{Args: []string{"sh", "-c", script, "sh", file, fmt.Sprint(started)}, Started: started})
			if err != nil {
				t.Fatalf("started %t: %v", started, err)
			}
			written[started] = u.Written
		}
		if before := written[false] - written[true]; written[false] > 0 && (before < 7<<20 || written[true] < 1<<20) { // a tmpfs counts none
			t.Errorf("%d bytes written, and %d from its start on: want some 8 MiB fewer", written[false], written[true])
		}
	})
	t.Run("a command that never starts", func(t *testing.T) {
		u, err := measure.Run(t.Context(), bin, measure.Command{Args: []string{"sh", "-c", "exit 3"}, Started: true})
		if !errors.Is(err, measure.ErrExit) || u.Exit != 3 {
			t.Errorf("%+v, %v; want the exit status 3", u, err)
		}
	})
	t.Run("a failure", func(t *testing.T) {
		u, err := measure.Run(t.Context(), bin, measure.Command{Args: []string{"sh", "-c", "echo no space >&2; exit 3"}})
		if !errors.Is(err, measure.ErrExit) || u.Exit != 3 || !strings.Contains(err.Error(), "no space") {
			t.Errorf("%+v, %v; want the exit status 3 and the last words", u, err)
		}
	})
	t.Run("a command that is killed", func(t *testing.T) {
		kill := make(chan struct{})
		close(kill)
		_, err := measure.Run(t.Context(), bin, measure.Command{Args: []string{"sh", "-c", "sleep 1000"}, Kill: kill})
		if err == nil {
			t.Error("no error")
		}
	})
	t.Run("a context that ends", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := measure.Run(ctx, bin, measure.Command{Args: []string{"sleep", "1000"}}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("no such program", func(t *testing.T) {
		if _, err := measure.Run(t.Context(), bin, measure.Command{Args: []string{filepath.Join(dir, "none")}}); err == nil {
			t.Error("no error")
		}
	})
}
