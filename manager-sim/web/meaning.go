package web

// Meaning returns what an error code means and what an operator can do. Both are
// empty for an unknown code.
func Meaning(code string) (meaning, remedy string) {
	e := explain(code)
	return e.Meaning, e.Remedy
}
