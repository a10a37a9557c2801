// Package answer writes the answers of the API: JSON, and refusals as api.Problem.
//
// An answer is encoded completely before its first byte is written, so that it arrives
// whole or as an error with a status of its own.
package answer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// JSON answers with v.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	write(w, status, v)
}

// Problem answers with a refusal. The text is for a person.
func Problem(w http.ResponseWriter, status int, code, format string, args ...any) {
	w.Header().Set("Content-Type", "application/problem+json")
	write(w, status, api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), Code: code})
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	b, err := Encode(v)
	if err != nil {
		status = http.StatusInternalServerError
		w.Header().Set("Content-Type", "application/problem+json")
		b, _ = json.Marshal(api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, // texts and a number: no error
			Detail: "the answer cannot be encoded: " + err.Error(), Code: api.CodeInternal})
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// Encode is json.Marshal without the escapes for HTML, which turn one byte into six:
// with them, the bounds of texts would bound nothing.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
