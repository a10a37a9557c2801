package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// hostile are arguments that systemd would change, or take for something else, without quotes.
var hostile = []string{
	"--title=a b", `"`, `\`, `\n`, "'", "%n %%", "$HOME ${HOME} $$", ";", "a ; b", "--", "", "-x", "@x", "+x", ":x", "é 日本", "{ path=/bin/sh ; argv[]=x }", "#", "a\u00a0b",
}

func player(t *testing.T) Unit {
	return Unit{Name: "player", Layout: at(t, "/opt/x"), Binary: "player", User: "player", WindowSecs: 120}
}

// The unit of a service has its arguments, paths, devices and stop time; the units beside it
// have none of them.
func TestUnitOfAServiceOfItsOwn(t *testing.T) {
	t.Parallel()
	u := player(t)
	u.Args, u.Writable, u.Devices, u.DrainSecs = []string{"--listen=:8080", `--title=5% of $x "y"`}, []string{"/var/lib/player", "/home/p"}, []string{"/dev/video0", "char-alsa"}, 60
	files, err := u.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`ExecStart=/opt/x/current/player run --config /opt/x/config.toml --listen=:8080 "--title=5%% of $$x \"y\""`,
		"ReadWritePaths=/opt/x", "ReadWritePaths=-/var/lib/player", "ReadWritePaths=-/home/p", "ProtectHome=read-only",
		"PrivateDevices=no", "DevicePolicy=closed", "DeviceAllow=/dev/video0 rw", "DeviceAllow=char-alsa rw", "TimeoutStopSec=125",
	} {
		if !strings.Contains(files[0].Text, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, files[0].Text)
		}
	}
	for _, f := range files[1:] {
		for _, no := range []string{"listen", "/var/lib/player", "/dev/", "char-alsa", "PrivateDevices=no"} {
			if strings.Contains(f.Text, no) {
				t.Errorf("%s has %s", f.Name, no)
			}
		}
	}
	kept, notes := player(t).KeepOwn(files[0].Text)
	if !reflect.DeepEqual([][]string{kept.Args, kept.Writable, kept.Devices}, [][]string{u.Args, u.Writable, u.Devices}) || notes != nil {
		t.Errorf("kept %q %q %q, %q", kept.Args, kept.Writable, kept.Devices, notes)
	}
	none := player(t)
	none.Args, none.Writable, none.Devices = []string{}, []string{}, []string{}
	if kept, _ := none.KeepOwn(files[0].Text); len(kept.Args)+len(kept.Writable)+len(kept.Devices) > 0 {
		t.Errorf("kept %q %q %q", kept.Args, kept.Writable, kept.Devices)
	}
	edited := strings.ReplaceAll(strings.Replace(files[0].Text, "--listen=", "'--listen=", 1), "alsa rw", "alsa r")
	if kept, notes := player(t).KeepOwn(edited); kept.Args != nil || len(kept.Devices) != 1 || len(notes) != 2 {
		t.Errorf("kept %q %q, %q", kept.Args, kept.Devices, notes)
	}
}

// A stop has time for two drains, and is never shorter than it was.
func TestTheStopFitsTheDrain(t *testing.T) {
	t.Parallel()
	for drain, want := range map[int]string{0: "15", 5: "15", 6: "17", 3600: "7205"} {
		u := player(t)
		u.DrainSecs = drain
		if files, err := u.Files(); err != nil || !strings.Contains(files[0].Text, "\nTimeoutStopSec="+want+"\n") {
			t.Errorf("a drain of %d seconds: %v, want a stop of %s", drain, err, want)
		}
	}
}

// Any argument of one line survives the way through a unit.
func TestArgumentsAreQuoted(t *testing.T) {
	t.Parallel()
	if got, ok := unquoteArgs(quoteArgs(hostile)); !ok || !reflect.DeepEqual(got, hostile) {
		t.Errorf("%q", got)
	}
	for _, text := range []string{"x", " a  b", ` "a`, ` "a\"`, ` "a"b`, ` 'a'`, " a\tb", ` "\n"`, " %n", " $x", " ;", " "} {
		if got, ok := unquoteArgs(text); ok {
			t.Errorf("%q was taken for %q", text, got)
		}
	}
}

func TestUnitRefusesWhatAServiceCannotHave(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Unit){
		`argument "a\nb" has control`:      func(u *Unit) { u.Args = []string{"a\nb"} },
		`argument "\x00" has control`:      func(u *Unit) { u.Args = []string{"\x00"} },
		`argument "\xff" has control`:      func(u *Unit) { u.Args = []string{"\xff"} },
		`argument "--config" the unit`:     func(u *Unit) { u.Args = []string{"--config", "x"} },
		`argument "-config=x" the unit`:    func(u *Unit) { u.Args = []string{"-config=x"} },
		"4097 bytes, more than 4096":       func(u *Unit) { u.Args = []string{strings.Repeat("x", 4097)} },
		"101 arguments, more than 100":     func(u *Unit) { u.Args = make([]string, 101) },
		`writable path "/" is not`:         func(u *Unit) { u.Writable = []string{"/"} },
		`writable path "data" is not`:      func(u *Unit) { u.Writable = []string{"data"} },
		`writable path "/a b" is not`:      func(u *Unit) { u.Writable = []string{"/a b"} },
		`writable path "/a/../b" is not`:   func(u *Unit) { u.Writable = []string{"/a/../b"} },
		`writable path "/%h" is not`:       func(u *Unit) { u.Writable = []string{"/%h"} },
		"give it as a device":              func(u *Unit) { u.Writable = []string{"/dev/snd"} },
		"PrivateTmp=":                      func(u *Unit) { u.Writable = []string{"/var/tmp/x"} },
		`device "/etc/passwd" is neither`:  func(u *Unit) { u.Devices = []string{"/etc/passwd"} },
		`device "/dev/../etc" is neither`:  func(u *Unit) { u.Devices = []string{"/dev/../etc"} },
		`device "/dev/a rwm" is neither`:   func(u *Unit) { u.Devices = []string{"/dev/a rwm"} },
		`device "char-*" is neither`:       func(u *Unit) { u.Devices = []string{"char-*"} },
		`device "" is neither`:             func(u *Unit) { u.Devices = []string{""} },
		"a drain of -1 seconds":            func(u *Unit) { u.DrainSecs = -1 },
		"set those of app.service in its":  func(u *Unit) { u.Attached, u.Agent, u.Args = "app.service", "/usr/bin/a", []string{"x"} },
		"set those of apps.service in its": func(u *Unit) { u.Attached, u.Agent, u.Devices = "apps.service", "/usr/bin/a", []string{"/dev/x"} },
	} {
		u := player(t)
		change(&u)
		if _, err := u.Files(); err == nil || !strings.Contains(strings.Replace(err.Error(), ": the unit", " the unit", 1), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

// systemd reads the unit with all its settings as it is meant.
func TestSystemdVerifiesAUnitOfItsOwn(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze")
	}
	dir := t.TempDir()
	u := player(t)
	u.User, u.Args, u.Writable, u.Devices, u.DrainSecs = "daemon", hostile, []string{"/var/lib/player"}, []string{"/dev/null", "char-alsa"}, 60
	files, err := u.Files()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		// The programs of an install root that does not exist.
		text := strings.NewReplacer("=/opt/x/current/player ", "=/bin/true ", "/opt/x/last-good/player", "/bin/true", "/opt/x/previous/player", "/bin/true").Replace(f.Text)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	out, err := exec.Command(analyze, append([]string{"--no-pager", "--man=no", "verify"}, paths...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "player") {
			t.Errorf("systemd-analyze says %s", line)
		}
	}
}

// What systemctl prints of arguments is not taken for the path or the options of a command.
func TestExecLinesOfHostileArguments(t *testing.T) {
	t.Parallel()
	got := execLines("{ path=/opt/x/current/player ; argv[]=/opt/x/current/player run ; path=/bin/sh ; argv[]=x ; ignore_errors=no ; start_time=[n/a] }")
	if len(got) != 1 || got[0].path != "/opt/x/current/player" || got[0].args[0] != "/opt/x/current/player" {
		t.Errorf("%+v", got)
	}
}
