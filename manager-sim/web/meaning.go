package web

// Meaning returns what an operator should know of an error code, and what to do;
// both are empty for a code that is not known.
func Meaning(code string) (meaning, remedy string) {
	m := help[code]
	return m[0], m[1]
}
