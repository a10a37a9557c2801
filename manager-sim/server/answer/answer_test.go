package answer_test

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
)

func TestJSONIsNotEscapedForHTML(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	answer.JSON(w, 201, map[string]string{"a": "<&>"})
	if w.Code != 201 || w.Body.String() != "{\"a\":\"<&>\"}\n" || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
}

// A value that cannot be encoded is answered as an error, not as half an answer.
func TestAnswerThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	answer.JSON(w, 200, []any{"begin", math.NaN()})
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w.Code != 500 || p.Status != 500 || p.Code != api.CodeInternal || strings.Contains(w.Body.String(), "begin") || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	answer.Problem(w, 404, api.CodeNotFound, "node %q", "n")
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w.Code != 404 || p.Detail != `node "n"` || p.Title != "Not Found" || p.Type != "about:blank" || p.Code != api.CodeNotFound {
		t.Errorf("%+v", p)
	}
}
