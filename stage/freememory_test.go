package stage

import (
	"os"
	"path/filepath"
	"testing"
)

// What a child may use is what the closest limit leaves, of the service's control group or of
// one above it, in both versions of control groups. Cache that the kernel can take back does
// not count as used.
func TestFreeInGroups(t *testing.T) {
	t.Parallel()
	const none = 1 << 62
	for name, tt := range map[string]struct {
		groups string
		files  map[string]string
		want   uint64
	}{
		"nothing known": {"", nil, none},
		"no limit":      {"0::/system.slice/edge.service\n", map[string]string{"system.slice/edge.service/memory.max": "max\n"}, none},
		"version 2": {"0::/system.slice/edge.service\n", map[string]string{
			"system.slice/edge.service/memory.max":     "1000\n",
			"system.slice/edge.service/memory.current": "700\n",
			"system.slice/edge.service/memory.stat":    "anon 1\ninactive_file 50\n",
		}, 350},
		"the slice has less": {"0::/system.slice/edge.service\n", map[string]string{
			"system.slice/edge.service/memory.max": "1000\n", "system.slice/edge.service/memory.current": "0\n",
			"system.slice/memory.max": "900\n", "system.slice/memory.current": "800\n",
		}, 100},
		"more than the limit": {"0::/a\n", map[string]string{"a/memory.max": "10\n", "a/memory.current": "20\n"}, 0},
		"version 1": {"12:pids:/x\n11:cpu,memory:/system.slice/edge.service\n1:name=systemd:/system.slice/edge.service\n", map[string]string{
			"memory/system.slice/edge.service/memory.limit_in_bytes": "1000\n",
			"memory/system.slice/edge.service/memory.usage_in_bytes": "700\n",
			"memory/system.slice/edge.service/memory.stat":           "inactive_file 1\ntotal_inactive_file 60\n",
		}, 360},
		"version 1 without a limit": {"4:memory:/a\n", map[string]string{
			"memory/a/memory.limit_in_bytes": "9223372036854771712\n", "memory/a/memory.usage_in_bytes": "700\n"}, none},
		"both, and the limit is in version 1": {"4:memory:/a\n0::/a\n", map[string]string{
			"memory/a/memory.limit_in_bytes": "100\n", "memory/a/memory.usage_in_bytes": "40\n"}, 60},
		"in a container": {"0::/\n", map[string]string{"memory.max": "100\n", "memory.current": "30\n"}, 70},
		"in a container, version 1": {"4:memory:/docker/abc\n", map[string]string{
			"memory/memory.limit_in_bytes": "100\n", "memory/memory.usage_in_bytes": "30\n"}, 70},
		"damaged": {"x\n0::/a\n", map[string]string{"a/memory.max": "1e9\n", "a/memory.current": "\x00"}, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, text := range tt.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := freeInGroups(root, tt.groups); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}
