package systemd

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Bounds of Unit.Args.
const (
	maxArgs    = 100
	maxArgSize = 4096 // bytes
)

// The time that a stop has besides twice DrainSecs, and the least of both together, in seconds.
const (
	stopMargin  = 5
	minStopSecs = 15
)

// How the settings of a service's own begin in its unit.
const (
	runConfig   = " run --config "
	ownWritable = "ReadWritePaths=-"
	ownDevice   = "DeviceAllow="
	ownComment  = "# Of the service itself. \"-\": it starts without it as well."
)

// drivers matches the name of all devices of a driver (systemd.resource-control(5)).
var drivers = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(char|block)-[0-9A-Za-z_.-]{1,64}$`) })

// checkOwn refuses what the service cannot have of its own.
func (u Unit) checkOwn() error {
	if u.DrainSecs < 0 {
		return fmt.Errorf("unit: a drain of %d seconds", u.DrainSecs)
	}
	if u.Attached != "" && len(u.Args)+len(u.Devices) > 0 {
		return fmt.Errorf("unit: arguments and devices are for a service that links the agent; set those of %s in its own unit", u.Attached)
	}
	if len(u.Args) > maxArgs {
		return fmt.Errorf("unit: %d arguments, more than %d", len(u.Args), maxArgs)
	}
	for _, arg := range u.Args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case len(arg) > maxArgSize:
			return fmt.Errorf("unit: argument %.40q... has %d bytes, more than %d", arg, len(arg), maxArgSize)
		case !utf8.ValidString(arg) || strings.ContainsFunc(arg, unicode.IsControl):
			return fmt.Errorf("unit: argument %q has control characters, or is not UTF-8", arg)
		case name == "config" && strings.HasPrefix(arg, "-"):
			return fmt.Errorf("unit: argument %q: the unit has --config %s already", arg, u.Layout.ConfigFile())
		}
	}
	for _, path := range u.Writable {
		switch {
		case !plain().MatchString(path) || !filepath.IsAbs(path) || path != filepath.Clean(path) || path == "/":
			return fmt.Errorf("unit: writable path %q is not a clean path below / of letters, digits and _./:=@+,- alone", path)
		case within(path, "/dev"):
			return fmt.Errorf("unit: writable path %s is a device: give it as a device", path)
		case within(path, "/tmp"), within(path, "/var/tmp"):
			return fmt.Errorf("unit: writable path %s: PrivateTmp= gives the service an empty directory there, which it can write to", path)
		}
	}
	for _, d := range u.Devices {
		if !drivers().MatchString(d) && (!plain().MatchString(d) || !strings.HasPrefix(d, "/dev/") || d != filepath.Clean(d)) {
			return fmt.Errorf("unit: device %q is neither a clean path below /dev of letters, digits and _./:=@+,- alone, nor char-NAME or block-NAME", d)
		}
	}
	return nil
}

// own returns the settings of the sandbox that are for the service alone.
func (u Unit) own() string {
	var b strings.Builder
	for _, path := range u.Writable {
		b.WriteString(ownComment + "\n" + ownWritable + path + "\n")
	}
	if len(u.Devices) == 0 {
		b.WriteString("PrivateDevices=yes\n")
		return b.String()
	}
	b.WriteString("# Its devices, and what each program has: /dev/null, /dev/urandom and the like. The permissions of\n# the files count as well.\nPrivateDevices=no\nDevicePolicy=closed\n")
	for _, d := range u.Devices {
		b.WriteString(ownDevice + d + " rw\n")
	}
	return b.String()
}

// stopSecs returns how long a stop may take.
func (u Unit) stopSecs() int { return max(minStopSecs, 2*u.DrainSecs+stopMargin) }

// word matches an argument that a command line of a unit takes literally.
var word = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_./:=@+,-]+$`) })

// quoteArgs returns arguments as a command line of a unit has them, each after a space.
func quoteArgs(args []string) string {
	var b strings.Builder
	for _, arg := range args {
		if word().MatchString(arg) {
			b.WriteString(" " + arg)
			continue
		}
		b.WriteString(` "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(arg) + `"`)
	}
	return b.String()
}

// unquoteArgs is the reverse of quoteArgs. It reports false for any other text.
func unquoteArgs(text string) (args []string, ok bool) {
	plainText := strings.NewReplacer(`\\`, `\`, `\"`, `"`, `%%`, `%`, `$$`, `$`)
	for rest := text; rest != ""; {
		if !strings.HasPrefix(rest, " ") {
			return nil, false
		}
		rest = rest[1:]
		if !strings.HasPrefix(rest, `"`) {
			n := len(rest)
			if i := strings.IndexByte(rest, ' '); i >= 0 {
				n = i
			}
			args, rest = append(args, rest[:n]), rest[n:]
			continue
		}
		end := 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			return nil, false
		}
		args, rest = append(args, plainText.Replace(rest[1:end])), rest[end+1:]
	}
	if quoteArgs(args) != text {
		return nil, false
	}
	return args, true
}

// KeepOwn completes u by the arguments, writable paths and devices in text, a unit that Files
// made once, where u has none. The notes name what somebody else wrote and it leaves out.
func (u Unit) KeepOwn(text string) (_ Unit, notes []string) {
	var args, writable, devices []string
	before := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if _, command, ok := strings.Cut(line, runConfig); ok && strings.HasPrefix(line, "ExecStart=") {
			_, rest, more := strings.Cut(command, " ")
			if args, ok = unquoteArgs(" " + rest); more && !ok {
				notes = append(notes, "left the arguments "+rest+" out: give them again with --arg")
			}
		}
		if path, ok := strings.CutPrefix(line, ownWritable); ok && before == ownComment {
			writable = append(writable, path)
		}
		if d, ok := strings.CutPrefix(line, ownDevice); ok {
			d, own := strings.CutSuffix(d, " rw")
			if devices = append(devices, d); !own {
				devices, notes = devices[:len(devices)-1], append(notes, "left "+line+" out: set it in a drop-in")
			}
		}
		before = line
	}
	if u.Args == nil {
		u.Args = args
	}
	if u.Writable == nil {
		u.Writable = writable
	}
	if u.Devices == nil {
		u.Devices = devices
	}
	return u, notes
}
