package install

import "strings"

// span is the part of a text from byte from to before byte to.
type span struct{ from, to int }

// lineEnd returns the end of the line at i, after its newline.
func lineEnd(text string, i int) int {
	if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
		return i + n + 1
	}
	return len(text)
}

// find returns where the value of a key of a table is, and where the header of the table
// ends; -1 if there is no such table. It knows tables with a header, and plain keys.
// It misses other forms; the caller then notices when it loads the changed file.
func find(text, table, key string) (value span, found bool, header int) {
	header = -1
	in := false
	for i := 0; i < len(text); {
		line := strings.TrimSpace(text[i:lineEnd(text, i)])
		switch {
		case line == "" || line[0] == '#':
			i = lineEnd(text, i)
			continue
		case line[0] == '[':
			name, _, _ := strings.Cut(strings.TrimLeft(line, "["), "]")
			in = strings.TrimSpace(name) == table && !strings.HasPrefix(line, "[[")
			i = lineEnd(text, i)
			if in {
				header = i
			}
			continue
		}
		eq := strings.IndexByte(text[i:], '=')
		if eq < 0 {
			return span{}, false, header
		}
		name := strings.Trim(strings.TrimSpace(text[i:i+eq]), `"'`)
		from := i + eq + 1
		for from < len(text) && (text[from] == ' ' || text[from] == '\t') {
			from++
		}
		to := valueEnd(text, from)
		if in && name == key {
			return span{from, to}, true, header
		}
		i = lineEnd(text, to)
	}
	return span{}, false, header
}

// valueEnd returns the end of the value that begins at i. A string or a bracket may span
// several lines.
func valueEnd(text string, i int) int {
	depth, last := 0, i
	for i < len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\'':
			i = stringEnd(text, i)
			last = i
			continue
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == '#':
			if depth == 0 {
				return last
			}
			i = lineEnd(text, i)
			continue
		case c == '\n' && depth <= 0:
			return last
		}
		if text[i] != ' ' && text[i] != '\t' && text[i] != '\r' && text[i] != '\n' {
			last = i + 1
		}
		i++
	}
	return last
}

// stringEnd returns the end of the string that begins at i.
func stringEnd(text string, i int) int {
	quote := text[i : i+1]
	if strings.HasPrefix(text[i:], strings.Repeat(quote, 3)) {
		if end := strings.Index(text[i+3:], strings.Repeat(quote, 3)); end >= 0 {
			return i + 3 + end + 3
		}
		return len(text)
	}
	for i++; i < len(text) && text[i] != '\n'; i++ {
		switch {
		case text[i] == '\\' && quote == `"`:
			i++
		case text[i] == quote[0]:
			return i + 1
		}
	}
	return min(i, len(text))
}

// value returns the value of a key as TOML, and whether the key is set.
func value(text, table, key string) (string, bool) {
	v, found, _ := find(text, table, key)
	return text[v.from:v.to], found
}

// set returns the text with a key of a table set to value, as TOML. It changes no other
// byte.
func set(text, table, key, value string) string {
	v, found, header := find(text, table, key)
	switch {
	case found:
		return text[:v.from] + value + text[v.to:]
	case header >= 0:
		if header > 0 && text[header-1] != '\n' {
			return text[:header] + "\n" + key + " = " + value + text[header:]
		}
		return text[:header] + key + " = " + value + "\n" + text[header:]
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + "\n[" + table + "]\n" + key + " = " + value + "\n"
}
