package systemd_test

import (
	"fmt"
	"strings"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// The unit of a service that links package agent.
func ExampleUnit_Files() {
	root, err := state.At("/opt/acme/player")
	if err != nil {
		fmt.Println(err)
		return
	}
	files, err := systemd.Unit{Name: "player", Layout: root, Binary: "player", User: "player", WindowSecs: 120}.Files()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range files {
		fmt.Println(f.Name)
		for line := range strings.Lines(f.Text) {
			if strings.HasPrefix(line, "Exec") || strings.HasPrefix(line, "Restart=") {
				fmt.Print("  ", line)
			}
		}
	}
	// Output:
	// player.service
	//   ExecStartPre=-/opt/acme/player/last-good/player watchdog --root /opt/acme/player
	//   ExecStartPre=-/opt/acme/player/previous/player rescue --root /opt/acme/player
	//   ExecStart=/opt/acme/player/current/player run --config /opt/acme/player/config.toml
	//   Restart=always
	// player-restart.service
	//   ExecStart=systemctl --no-block start player.service
	// player-respawn.path
	// player-respawn.service
	//   ExecStart=-systemctl --no-block --job-mode=fail try-restart player.service
	// player-watchdog.service
	//   ExecStart=-/opt/acme/player/last-good/player watchdog --before player.service --root /opt/acme/player
	//   ExecStart=-/opt/acme/player/previous/player rescue --root /opt/acme/player
	// player-retry.service
	//   ExecCondition=/opt/acme/player/last-good/player watchdog --after player.service --root /opt/acme/player
	//   ExecStart=+systemctl --no-block start player-restart.service
}

// The unit of a service with arguments, directories and devices of its own. Writing the files
// below /etc/systemd/system installs it.
func ExampleUnit() {
	root, err := state.At("/opt/acme/player")
	if err != nil {
		fmt.Println(err)
		return
	}
	files, err := systemd.Unit{
		Name: "player", Layout: root, Binary: "player", User: "player", WindowSecs: 120, DrainSecs: 60,
		Args: []string{"--listen=:8080", "--title=5 % louder"}, Writable: []string{"/var/lib/player"}, Devices: []string{"char-alsa"},
	}.Files()
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(files[0].Text) {
		for _, key := range []string{"ExecStart=", "TimeoutStopSec=", "ReadWritePaths=", "DeviceAllow="} {
			if strings.HasPrefix(line, key) {
				fmt.Print(line)
			}
		}
	}
	// Output:
	// ExecStart=/opt/acme/player/current/player run --config /opt/acme/player/config.toml --listen=:8080 "--title=5 %% louder"
	// TimeoutStopSec=125
	// ReadWritePaths=/opt/acme/player
	// ReadWritePaths=-/var/lib/player
	// DeviceAllow=char-alsa rw
}

// A service notifies systemd that it is ready. Without NOTIFY_SOCKET that does nothing.
func ExampleNotify() {
	if err := systemd.Notify("READY=1"); err != nil {
		fmt.Println(err)
	}
	// Output:
}
