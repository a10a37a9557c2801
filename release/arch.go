package release

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
)

// archNames are the architectures of Linux that Go has and manifests write in another way.
var archNames = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "arm": "armv7", "386": "i686"}

// HostArch returns the architecture of this program as manifests write it:
// x86_64-linux, aarch64-linux, armv7-linux, ...
func HostArch() string {
	return cmp.Or(archNames[runtime.GOARCH], runtime.GOARCH) + "-linux"
}

// CheckArch returns an error if no node has that architecture, with the name that was probably
// meant. A reader accepts any.
func CheckArch(arch string) error {
	known := []string{"loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x"}
	known = append(known, slices.Collect(maps.Values(archNames))...)
	if name, ok := strings.CutSuffix(arch, "-linux"); ok && slices.Contains(known, name) {
		return nil
	}
	slices.Sort(known)
	name := strings.ToLower(strings.TrimPrefix(strings.TrimSuffix(arch, "-linux"), "linux-"))
	for meant, others := range map[string][]string{
		"x86_64": {"x86-64", "x64", "amd64"}, "aarch64": {"arm64", "armv8"}, "armv7": {"arm", "armhf", "armv7l", "armv6"}, "i686": {"386", "i386", "x86"},
	} {
		if slices.Contains(others, name) {
			known = []string{meant}
		}
	}
	if slices.Contains(known, name) {
		known = []string{name}
	}
	return fmt.Errorf("no node has the architecture %.80q; write %s", arch, strings.Join(known, "-linux, ")+"-linux")
}
