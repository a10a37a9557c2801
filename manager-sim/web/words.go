package web

import (
	"regexp"
	"strings"
	"unicode"
)

// maxExcerpt is the most characters of a node's message in a list. The node's page shows
// the whole message.
const maxExcerpt = 200

// excerpt returns the beginning of a message for a list. It ends after a word if
// possible.
func excerpt(s string) string {
	r := []rune(strings.TrimSpace(s))
	if len(r) <= maxExcerpt {
		return string(r)
	}
	end := maxExcerpt
	for i := maxExcerpt; i > maxExcerpt*2/3; i-- {
		if unicode.IsSpace(r[i]) {
			end = i
			break
		}
	}
	return strings.TrimRight(string(r[:end]), " \t\r\n.,;:") + "…"
}

// cut reports whether excerpt shortens s.
func cut(s string) bool { return len([]rune(strings.TrimSpace(s))) > maxExcerpt }

// fieldWords replaces the fields of the API by the words of the pages.
var fieldWords = strings.NewReplacer("settle_secs", "the settle window in seconds", "expires_in_secs", "the time to expiry in seconds",
	"threshold is", "the number of failures that pause is", "node_id", "node id", "group_id", "group id", "device_type", "device type", "allow_unlisted", "the choice to request it anyway")

var goList = regexp.MustCompile(`(one of )\[([^\[\]]*)\]`)

// plain returns the text of a refusal in the words of the pages, without names of fields
// and Go's syntax of lists.
func plain(text string) string {
	text = goList.ReplaceAllStringFunc(text, func(m string) string {
		parts := goList.FindStringSubmatch(m)
		return parts[1] + words(strings.Join(strings.Fields(parts[2]), ", "))
	})
	return fieldWords.Replace(strings.Replace(text, "severity=", "severity ", 1))
}

// words returns a name of the API with spaces in place of underscores.
func words(s string) string { return strings.ReplaceAll(s, "_", " ") }
