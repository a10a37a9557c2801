package install_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/install"
	"github.com/bilbycast/edge-agent/systemd"
)

// The units of an agent beside a service that links nothing.
func ExampleWriteUnits() {
	err := func(ctx context.Context) error {
		dir, err := os.MkdirTemp("", "example")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "config.toml")
		text := "[service]\ndevice_type = \"player\"\nbinary = \"player\"\ninstall_root = \"/opt/acme/player\"\nunit = \"player.service\"\n[manager]\nurls = [\"wss://manager.example:8443\"]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		u, err := install.LoadUnit(file, systemd.Unit{User: "upgrader", Agent: "/usr/local/bin/edge-agent"})
		if err != nil {
			return err
		}
		paths, err := install.WriteUnits(ctx, dir, u)
		for _, path := range paths {
			name, _ := filepath.Rel(dir, path) // both are absolute
			fmt.Println(name)
		}
		fmt.Println(install.StartCommand(u))
		return err
	}(context.Background())
	fmt.Println(err)
	// Output:
	// player-agent.service
	// player.service.d/50-edge-agent.conf
	// player-restart.path
	// player-restart.service
	// player-watchdog.service
	// player-retry.service
	// systemctl daemon-reload && systemctl enable --now player-restart.path player-agent.service && systemctl restart player.service
	// <nil>
}

// Doctor returns one finding for each check; one that is not OK has a cause.
func ExampleDoctor() {
	for _, f := range install.Doctor(context.Background(), "/nonexistent/config.toml") {
		fmt.Printf("%s: %t: %s\n", f.What, f.OK, f.Cause)
	}
	// Output: configuration: false: config: open /nonexistent/config.toml: no such file or directory
}
