package release_test

import (
	"fmt"

	"github.com/bilbycast/edge-agent/release"
)

// A node's policy decides whether a request is allowed.
func ExamplePolicy_Check() {
	policy := release.Policy{Enabled: true, Channels: []string{"stable"}, RollbackGrace: 1}
	running := release.MustVersion("1.4.0")
	for _, version := range []string{"1.5.0", "1.3.0", "1.1.0"} {
		request, err := release.NewRequest(version, "stable", "", "", release.Host{DeviceType: "edge", Arch: "x86_64-linux", Variant: "default"})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(version, policy.Check(request, running))
	}
	// Output:
	// 1.5.0 <nil>
	// 1.3.0 <nil>
	// 1.1.0 1.1.0 is 3 minor versions behind the running 1.4.0; rollback_grace of this node's [upgrade] is 1
}

// Foreign makes a text of another program safe to log and to show.
func ExampleForeign() {
	fmt.Println(release.Foreign("disk full\x1b[2J\nforged line", 40))
	// Output: disk full?[2J forged line
}
