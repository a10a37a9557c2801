package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// token reads the registration token. It returns "" if there is no TokenFile.
func (n *Node) token() (string, error) {
	if n.TokenFile == "" {
		return "", nil
	}
	in := n.Stdin
	if n.TokenFile != "-" {
		f, err := os.Open(n.TokenFile)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > maxToken {
		return "", fmt.Errorf("%s holds no token of 1 to %d bytes", n.TokenFile, maxToken)
	}
	return token, nil
}

// noManager as Node.Manager installs a node without a manager.
const noManager = "none"

// newConfig returns the text of the first config.toml.
func (n *Node) newConfig() (string, error) {
	none := n.Manager == noManager
	if n.Manager == "" || n.TokenFile == "" && !none {
		return "", usage("--manager and --token-file are required, since %s has no config.toml (without a manager: --manager none)", n.Root)
	}
	token, err := n.token()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	// The program in a release, whatever the name of this copy.
	fmt.Fprintf(&text, "[service]\nname = %s\ndevice_type = %s\ninstall_root = %s\nbinary = \"edge-agent\"\n\n[manager]\n", quote(n.Name), quote(n.DeviceType), quote(n.Root))
	for _, kv := range n.settings(token) {
		fmt.Fprintf(&text, "%s = %s\n", kv.key, kv.value)
	}
	text.WriteString("\n[upgrade]\nenabled = true\n")
	c := config.Config{Service: config.Service{Name: n.Name, DeviceType: n.DeviceType, InstallRoot: n.Root}}
	c.Manager.URLs, c.Manager.RegistrationToken, c.Manager.CAFile = []string{n.Manager}, config.NewSecret(token), n.CAFile
	if none {
		c.Manager.URLs = []string{}
	}
	if _, err := c.Resolve(); err != nil { // before anything is created
		return "", UsageError{err}
	}
	return text.String(), nil
}

// setting is a key of [manager] with its value, as TOML.
type setting struct{ key, value string }

// settings returns the settings that n has.
func (n *Node) settings(token string) []setting {
	var out []setting
	switch n.Manager {
	case "":
	case noManager:
		out = append(out, setting{"urls", "[]"})
	default:
		out = append(out, setting{"urls", "[" + quote(n.Manager) + "]"})
	}
	for _, kv := range []setting{{"registration_token", token}, {"cert_fingerprint", n.Fingerprint}, {"ca_file", n.CAFile}} {
		if kv.value != "" {
			out = append(out, setting{kv.key, quote(kv.value)})
		}
	}
	return out
}

// quote returns s as a basic string of TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// again gives a kept root to the user, applies the settings of n, and reports whether
// the service must be restarted.
func (n *Node) again(ctx context.Context, l state.Layout, kept ownership) (changed bool, err error) {
	uid, gid, err := n.makeUser(ctx)
	if err != nil {
		return false, err
	}
	handed, err := n.handOver(ctx, l, kept, uid, gid)
	if err != nil {
		return false, err
	}
	if err := n.child(ctx, Job{Root: n.real}); err != nil { // tries what the root can do
		return false, err
	}
	changed, err = n.applySettings(ctx, l)
	return changed || handed, err
}

// applySettings writes the settings of n to config.toml, and reports whether that changed.
func (n *Node) applySettings(ctx context.Context, l state.Layout) (bool, error) {
	path := l.ConfigFile()
	text, changed, err := n.changedConfig(l)
	if errors.Is(err, fs.ErrNotExist) {
		text, err := n.newConfig()
		if err != nil {
			return false, err
		}
		if err := n.child(ctx, Job{Root: n.real, Config: text}); err != nil {
			return false, err
		}
		n.report("wrote %s", path)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if changed == nil {
		n.report("%s has these settings already, and is not changed", path)
		return false, nil
	}
	keep := l.ConfigCopy(time.Now())
	if err := n.child(ctx, Job{Root: n.real, Config: text, Keep: filepath.Base(keep)}); err != nil {
		return false, err
	}
	n.report("changed %s in %s; the old file is %s", strings.Join(changed, " and "), path, filepath.Base(keep))
	if _, err := os.Lstat(l.CredentialsFile()); err == nil && n.Manager != noManager && slices.Contains(changed, "manager.urls") {
		n.report("the node keeps its registration; if the new manager does not know the node, remove %s and restart the service", l.CredentialsFile())
	}
	return true, nil
}

// changedConfig returns config.toml with the settings of n, and the keys that this
// changes. If it changes none, both are empty. The error is fs.ErrNotExist if there is
// no config.toml.
func (n *Node) changedConfig(l state.Layout) (text string, changed []string, err error) {
	path := l.ConfigFile()
	if _, err := os.Lstat(path); err != nil {
		return "", nil, err
	}
	token, err := n.token()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("--token-file %s does not exist", n.TokenFile)
	}
	if err != nil {
		return "", nil, err
	}
	settings := n.settings(token)
	if settings == nil {
		return "", nil, nil
	}
	old, err := fsutil.ReadLinked(path, config.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("%s is a dangling link: create the file that it points to, or remove the link", path)
	}
	if err != nil {
		return "", nil, err
	}
	text = string(old)
	for _, kv := range settings {
		have, _ := value(text, "manager", kv.key)
		if !same(kv, have) {
			text, changed = set(text, "manager", kv.key, kv.value), append(changed, "manager."+kv.key)
		}
	}
	if changed == nil {
		return "", nil, nil
	}
	if to, err := os.Readlink(path); err == nil {
		return "", nil, fmt.Errorf("%s is a link to %s, which is not changed: correct %s there, or replace the link by the file", path, to, strings.Join(changed, " and "))
	}
	return text, changed, nil
}

// same reports whether have, a value in the file, includes the value of kv. A list may
// have more elements; fingerprints are compared without colons and case.
func same(kv setting, have string) bool {
	if kv.value == have {
		return true
	}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, ":", "")) }
	switch want := strings.Trim(kv.value, "[]"); kv.key {
	case "urls":
		return slices.Contains(quoted(have), strings.Trim(want, `"`))
	case "cert_fingerprint":
		return slices.ContainsFunc(quoted(have), func(s string) bool { return plain(s) == plain(strings.Trim(want, `"`)) })
	default:
		return slices.Contains(quoted(have), strings.Trim(want, `"`))
	}
}

// quoted returns the strings in a TOML value. It resolves no escapes.
func quoted(value string) []string {
	var out []string
	for i := 0; i < len(value); {
		q := value[i]
		if q != '"' && q != '\'' {
			i++
			continue
		}
		end := strings.IndexByte(value[i+1:], q)
		if end < 0 {
			break
		}
		out = append(out, value[i+1:i+1+end])
		i += end + 2
	}
	return out
}
