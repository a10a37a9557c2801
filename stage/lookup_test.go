package stage

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// lookupEnv has what the child of TestALookup does before it looks a name up.
const lookupEnv = "EDGE_AGENT_TEST_LOOKUP"

// The name server is the first that a fetch needs. A lookup that this machine itself prevents
// has the code of a local fault, and its cause in words; one that nobody answers is waited for.
func TestALookup(t *testing.T) {
	t.Parallel()
	if do := os.Getenv(lookupEnv); do != "" {
		lookUp(t, do)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: it needs root")
	}
	const (
		server   = "mount -t tmpfs none /etc; ip link set lo up; echo nameserver 192.0.2.1 > /etc/resolv.conf; "
		everyone = "mount -t tmpfs -o mode=755 none /etc; ip link set lo up; echo nameserver 127.0.0.1 > /etc/resolv.conf; "
	)
	for name, tt := range map[string]struct {
		script string // as root, with network and mounts of its own
		do     string // by the process that looks up
		away   bool
		text   string
	}{
		"no network":                  {server, "look", true, "network is unreachable"},
		"no name server":              {everyone, "look", true, "connection refused"},
		"no resolv.conf":              {everyone + "rm /etc/resolv.conf", "look", true, "connection refused"},
		"an empty resolv.conf":        {everyone + ": > /etc/resolv.conf", "look", true, "connection refused"},
		"too many open files":         {everyone, "full", false, "too many open files"},
		"a prohibit route":            {server + "ip route add prohibit default", "look", false, "connect: permission denied: look at its firewall"},
		"resolv.conf is denied":       {everyone + "chmod 600 /etc/resolv.conf", "nobody", false, "/etc/resolv.conf: permission denied: the mode refuses it"},
		"no such name":                {everyone, "nxdomain", true, "no such host"},
		"only a denied hosts has it":  {everyone + "echo 192.0.2.2 h.invalid > /etc/hosts; chmod 600 /etc/hosts", "nxdomain", false, "/etc/hosts: permission denied"},
		"the whole of /etc is denied": {everyone + "chmod 700 /etc", "nobody", false, "may not enter /etc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("unshare", "-m", "-n", "sh", "-ec", tt.script+"\nexec /proc/self/fd/3 -test.run='^TestALookup$'")
			self, err := os.Open("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			defer self.Close()
			cmd.ExtraFiles = []*os.File{self}
			cmd.Env = append(os.Environ(), lookupEnv+"="+tt.do, "GODEBUG=netdns=go")
			out, err := cmd.CombinedOutput()
			result, words, ok := strings.Cut(strings.TrimPrefix(string(out), "result: "), "\n")
			words, _, _ = strings.Cut(words, "\n")
			if err != nil || !ok || (result == "away") != tt.away || !strings.Contains(words, tt.text) {
				t.Errorf("%v: %s", err, out)
			}
			if want := string(release.Internal); !tt.away && result != want {
				t.Errorf("%s, not %s", result, want)
			}
		})
	}
}

// lookUp prints what a fetch from a host with a name says.
func lookUp(t *testing.T, do string) {
	c, err := newClient(Config{Trust: noTrust{}, StallTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if do == "nxdomain" {
		server, err := net.ListenPacket("udp", "127.0.0.1:53")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			var b [512]byte
			for n, from, err := server.ReadFrom(b[:]); err == nil; n, from, err = server.ReadFrom(b[:]) {
				b[2], b[3] = 0x81, 0x83 // an answer: no such name
				server.WriteTo(b[:n], from)
			}
		}()
	}
	switch do {
	case "nobody", "nxdomain":
		if err := syscall.Setuid(65534); err != nil {
			t.Fatal(err)
		}
	case "full":
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 30, Max: 30}); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = unix.Open("/dev/null", unix.O_RDONLY, 0)
		}
	}
	_, err = (&host{base: "https://h.invalid/x", client: c, stall: 5 * time.Second}).Open(t.Context(), "manifest.json", 0, "")
	result := string(code(err))
	if errors.As(err, new(unreachable)) {
		result = "away"
	}
	os.Stdout.WriteString("result: " + result + "\n" + err.Error() + "\n")
}

// noTrust is the trust of a client that only connects.
type noTrust struct{ Trust }

func (noTrust) FetchURLs(release.Version) []string { return nil }
func (noTrust) ReleaseCA() []byte                  { return nil }
