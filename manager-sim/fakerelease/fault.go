package fakerelease

import (
	"fmt"
	"strings"
)

// Fault makes a release bad.
type Fault string

// Faults that a node must refuse before it swaps a link.
const (
	WrongIdentity Fault = "wrong-identity"
	BadSignature  Fault = "bad-signature"
	NoLogEntry    Fault = "no-log-entry"
	BadChecksum   Fault = "bad-checksum"
	Truncated     Fault = "truncated"
	NotExecutable Fault = "not-executable"
	WrongArch     Fault = "wrong-arch"
)

// Faults of the running program. The tarball then contains the file sim-fault, which
// makes a simulation build of the agent fail in this way.
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

// FaultFile is the name of the file in the tarball that contains the fault.
const FaultFile = "sim-fault"

// Faults returns every fault with its description.
func Faults() [][2]string {
	return [][2]string{
		{string(WrongIdentity), "signed by the workflow of a fork"},
		{string(BadSignature), "a signature over other bytes"},
		{string(NoLogEntry), "never logged in the transparency log"},
		{string(BadChecksum), "a tarball with another SHA-256 than the signed one"},
		{string(Truncated), "a truncated tarball whose SHA-256 is signed"},
		{string(NotExecutable), "a program that is not executable"},
		{string(WrongArch), "a program for another machine"},
		{string(ExitsAtOnce), "starts, then exits with 1 (simulation builds)"},
		{string(Hangs), "starts, then hangs (simulation builds)"},
		{string(NeverAuthenticates), "runs, but never connects to its manager (simulation builds)"},
		{string(NeverHealthy), "runs and authenticates, but its health check fails (simulation builds)"},
		{string(WrongVersion), "reports another version (simulation builds)"},
		{string(ReadyThenExits), "sends READY=1 too early, then exits (simulation builds)"},
		{string(ReadyThenHangs), "sends READY=1 too early, then hangs (simulation builds)"},
		{string(Segfaults), "ends by SIGSEGV (simulation builds)"},
		{string(EatsMemory), "allocates 1 GiB of memory (simulation builds)"},
		{string(DeletesPrevious), "removes the link previous, then exits (simulation builds)"},
		{string(FillsDisk), "fills the disk, up to 1 GiB, then exits (simulation builds)"},
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
	return fmt.Errorf("unknown fault %q; known are %s", f, strings.Join(names, ", "))
}

// inside reports whether f is a fault of the running program.
func (f Fault) inside() bool {
	switch f {
	case "", WrongIdentity, BadSignature, NoLogEntry, BadChecksum, Truncated, NotExecutable, WrongArch:
		return false
	}
	return true
}
