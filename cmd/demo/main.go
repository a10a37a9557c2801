// Command demo builds manager-sim and the agent, and runs the demo. It is the README's
// first command. With empty caches Go compiles for a minute or more and prints nothing. So
// this program imports only os and time, compiles in a few seconds, and reports the
// progress of the other builds.
package main

import (
	"os"
	"time"
)

// say prints a line.
func say(text string) { os.Stdout.WriteString("demo: " + text + "\n") }

func main() {
	say("building the manager and the agent; the first time this takes a minute or two")
	dir, err := os.MkdirTemp("", "edge-agent-build-")
	if err != nil {
		fail(err.Error())
	}
	began := time.Now()
	program := dir + "/manager-sim"
	// The agent is built as package rig builds it, so that the demo finds it in Go's cache.
	ok := build(began, "the manager", "-trimpath", "-exec", "cp", "./cmd/manager-sim", program) &&
		build(began, "the agent", "-trimpath", "-tags", "sim", "-ldflags", "-s -w -X main.version=1.0.0", "-exec", "true", "./cmd/edge-agent")
	if !ok {
		os.RemoveAll(dir)
		fail("the build failed; see above")
	}
	say("built in " + seconds(time.Since(began)))
	code := run(append([]string{program, "demo"}, os.Args[1:]...), os.Stderr)
	os.RemoveAll(dir)
	os.Exit(code)
}

func fail(why string) {
	say("failed: " + why)
	os.Exit(1)
}

// build runs go run, whose program is kept in Go's build cache. It reports every two
// seconds how many packages were compiled, and returns whether the build succeeded.
func build(began time.Time, what string, args ...string) bool {
	r, w, err := os.Pipe()
	if err != nil {
		fail(err.Error())
	}
	done := make(chan int)
	go func() {
		code := run(append([]string{"go", "run", "-v"}, args...), w)
		w.Close()
		done <- code
	}()
	lines := make(chan string)
	go func() {
		scan(r, lines)
		close(lines)
	}()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	packages := 0
	for {
		select {
		case line, more := <-lines:
			switch {
			case !more:
				return <-done == 0
			case isPackage(line):
				packages++
			default: // an error, or a download
				os.Stderr.WriteString(line + "\n")
			}
		case <-tick.C:
			say(seconds(time.Since(began)) + ": " + decimal(packages) + " packages of " + what + " compiled")
		}
	}
}

// isPackage reports whether a line of go run -v is an import path.
func isPackage(line string) bool {
	for i := 0; i < len(line); i++ {
		if c := line[i]; c <= ' ' || c == ':' || c == '#' {
			return false
		}
	}
	return line != ""
}

// scan sends each line of r to lines.
func scan(r *os.File, lines chan<- string) {
	var line []byte
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		for _, c := range b[:n] {
			if c == '\n' {
				lines <- string(line)
				line = line[:0]
				continue
			}
			line = append(line, c)
		}
		if err != nil {
			return
		}
	}
}

// run runs a program with the standard input and output of this one, and returns its exit
// code.
func run(args []string, stderr *os.File) int {
	path := args[0]
	if path == "go" {
		path = lookUp("go")
	}
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: append(os.Environ(), "CGO_ENABLED=0"), Files: []*os.File{os.Stdin, os.Stdout, stderr}})
	if err != nil {
		fail(err.Error())
	}
	st, err := p.Wait()
	if err != nil {
		fail(err.Error())
	}
	return st.ExitCode()
}

// lookUp returns the path of a program in PATH.
func lookUp(name string) string {
	dirs := os.Getenv("PATH")
	for start, i := 0, 0; i <= len(dirs); i++ {
		if i < len(dirs) && dirs[i] != ':' {
			continue
		}
		path := dirs[start:i] + "/" + name
		start = i + 1
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path
		}
	}
	fail(name + " is not in PATH")
	return ""
}

func decimal(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return decimal(n/10) + decimal(n%10)
}

func seconds(d time.Duration) string { return decimal(int(d/time.Second)) + " s" }
