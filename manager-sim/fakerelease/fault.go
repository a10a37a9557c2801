package fakerelease

import (
	"fmt"
	"strings"
)

// Fault is a way in which a release can be bad.
type Fault string

// Faults that a node must refuse before it swaps anything.
const (
	WrongIdentity Fault = "wrong-identity"
	BadSignature  Fault = "bad-signature"
	NoLogEntry    Fault = "no-log-entry"
	BadChecksum   Fault = "bad-checksum"
	Truncated     Fault = "truncated"
	NotExecutable Fault = "not-executable"
	WrongArch     Fault = "wrong-arch"
)

// Faults that show only when the release runs. The tarball then holds the file
// sim-fault, which a simulation build of the agent obeys.
const (
	ExitsAtOnce        Fault = "exits-at-once"
	Hangs              Fault = "hangs"
	NeverAuthenticates Fault = "never-authenticates"
	NeverHealthy       Fault = "never-healthy"
	WrongVersion       Fault = "wrong-version"
	ReadyThenExits     Fault = "ready-then-exits"
	ReadyThenHangs     Fault = "ready-then-hangs"
	Segfaults          Fault = "segfaults"
	EatsMemory         Fault = "eats-memory"
	DeletesPrevious    Fault = "deletes-previous"
	FillsDisk          Fault = "fills-disk"
)

// FaultFile is the name, in the tarball, of the file that orders a fault.
const FaultFile = "sim-fault"

// Faults lists every fault with what it does.
func Faults() [][2]string {
	return [][2]string{
		{string(WrongIdentity), "signed by the workflow of a fork"},
		{string(BadSignature), "a signature over other bytes"},
		{string(NoLogEntry), "never logged in the transparency log"},
		{string(BadChecksum), "a tarball that is not the one of the signed SHA-256"},
		{string(Truncated), "a tarball that ends in the middle, signed as it is"},
		{string(NotExecutable), "a program without its x bits"},
		{string(WrongArch), "a program for another machine"},
		{string(ExitsAtOnce), "starts, and exits with 1 (simulation builds)"},
		{string(Hangs), "starts, and does nothing (simulation builds)"},
		{string(NeverAuthenticates), "runs, and never reaches its manager (simulation builds)"},
		{string(NeverHealthy), "runs and authenticates, and its own check fails (simulation builds)"},
		{string(WrongVersion), "says that it is another version (simulation builds)"},
		{string(ReadyThenExits), "says READY=1 too early, and exits (simulation builds)"},
		{string(ReadyThenHangs), "says READY=1 too early, and hangs (simulation builds)"},
		{string(Segfaults), "dies by SIGSEGV (simulation builds)"},
		{string(EatsMemory), "takes 1 GiB of memory (simulation builds)"},
		{string(DeletesPrevious), "removes the link previous, and exits (simulation builds)"},
		{string(FillsDisk), "fills the disk, up to 1 GiB, and exits (simulation builds)"},
	}
}

func (f Fault) check() error {
	if f == "" {
		return nil
	}
	var names []string
	for _, k := range Faults() {
		if k[0] == string(f) {
			return nil
		}
		names = append(names, k[0])
	}
	return fmt.Errorf("no fault %q; there are %s", f, strings.Join(names, ", "))
}

// inside reports whether f takes effect in the running program.
func (f Fault) inside() bool {
	switch f {
	case "", WrongIdentity, BadSignature, NoLogEntry, BadChecksum, Truncated, NotExecutable, WrongArch:
		return false
	}
	return true
}
