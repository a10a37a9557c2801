package config_test

import (
	"fmt"

	"github.com/bilbycast/edge-agent/config"
)

// A program fills in a configuration itself; Resolve checks it as it checks a file.
func ExampleConfig_Resolve() {
	c := config.Config{
		Service: config.Service{DeviceType: "player", Binary: "player"},
		Manager: config.Manager{URLs: []string{"wss://manager.example:8443"}},
	}
	s, err := c.Resolve()
	fmt.Println(err)
	fmt.Println(s.Layout.Root(), s.Window, s.Policy.Enabled)

	c.Upgrade.KeepVersions = 1
	_, err = c.Resolve()
	fmt.Println(err)
	// Output:
	// <nil>
	// /opt/bilbycast/player 2m0s false
	// upgrade.keep_versions = 1 is outside 2 to 100
}
