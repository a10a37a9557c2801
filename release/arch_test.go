package release

import (
	"strings"
	"testing"
)

// Names of Go and Debian, and misspelt ones, are refused with the name that nodes have.
func TestCheckArch(t *testing.T) {
	t.Parallel()
	for arch, want := range map[string]string{
		HostArch(): "", "x86_64-linux": "", "aarch64-linux": "", "armv7-linux": "", "i686-linux": "", "riscv64-linux": "", "mips-linux": "", "s390x-linux": "",
		"arm64": "write aarch64-linux", "amd64": "write x86_64-linux", "x86-64": "write x86_64-linux", "linux-amd64": "write x86_64-linux",
		"armv6-linux": "write armv7-linux", "armhf": "write armv7-linux", "i386": "write i686-linux", "aarch64": "write aarch64-linux",
		"X86_64-linux": "write x86_64-linux", "AMD64-linux": "write x86_64-linux", "x86_64-darwin": "aarch64-linux, armv7-linux", "": "riscv64-linux",
	} {
		err := CheckArch(arch)
		if (err == nil) != (want == "") || err != nil && !strings.HasSuffix(err.Error(), want) && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", arch, err, want)
		}
	}
}
