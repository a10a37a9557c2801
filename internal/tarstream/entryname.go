package tarstream

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// cleanName returns the shortest form of an entry's name, or an error if it is not a plain
// path inside the archive.
func cleanName(name string) (string, error) {
	if err := checkBytes(name); err != nil {
		return "", err
	}
	if path.IsAbs(name) {
		return "", errors.New("the name is absolute")
	}
	parts := strings.Split(strings.TrimSuffix(name, "/"), "/") // a directory's name may end with one
	if len(parts) > MaxDepth {
		return "", fmt.Errorf("the name has %d elements, more than %d", len(parts), MaxDepth)
	}
	for _, p := range parts {
		if p == ".." {
			return "", errors.New("the name contains \"..\"")
		}
		if len(p) > 255 {
			return "", fmt.Errorf("the name has an element of %d bytes, more than 255", len(p))
		}
	}
	return path.Clean(name), nil
}

// checkTarget returns an error if a symbolic link leaves the archive. Its ".." elements
// must all come first, and must not go above the top. No entry lies below a link, so
// the link's own directory is the one that its name gives; and without ".." after
// that, other links on the way cannot leave either.
func checkTarget(name, target string) error {
	if err := checkBytes(target); err != nil {
		return fmt.Errorf("link target: %w", err)
	}
	if path.IsAbs(target) {
		return fmt.Errorf("link to %.200q, which is absolute", target)
	}
	up, down := 0, false
	for _, p := range strings.Split(target, "/") {
		switch p {
		case "", ".":
		case "..":
			if down {
				return fmt.Errorf("link to %.200q: \"..\" after another element", target)
			}
			up++
		default:
			down = true
		}
	}
	if up > strings.Count(name, "/") {
		return fmt.Errorf("link to %.200q, which leaves the archive", target)
	}
	return nil
}

func checkBytes(s string) error {
	if s == "" {
		return errors.New("the name is empty")
	}
	if len(s) > MaxPath {
		return fmt.Errorf("the name has %d bytes, more than %d", len(s), MaxPath)
	}
	if !utf8.ValidString(s) {
		return errors.New("the name is not UTF-8")
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return errors.New("the name contains a control character")
		}
	}
	return nil
}
