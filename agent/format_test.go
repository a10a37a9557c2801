package agent

import (
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"strings"
	"testing"
	texttemplate "text/template"

	"github.com/bilbycast/edge-agent/config"
)

// An Agent is printed without what it holds.
func TestAnAgentIsNotPrinted(t *testing.T) {
	t.Parallel()
	a := &Agent{registered: credentials{"n", "hunter2"}}
	a.c.Warnings.Accepted = config.NewSecret("hunter2")
	a.c.Manager.RegistrationToken = config.NewSecret("hunter2")
	var text strings.Builder
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "agent", a)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%p"} {
		fmt.Fprintf(&text, verb, a)
	}
	fmt.Fprintf(&text, "%v %+v %#v", struct{ a *Agent }{a}, struct{ a *Agent }{a}, struct{ a *Agent }{a})
	for _, page := range []interface{ Execute(io.Writer, any) error }{
		texttemplate.Must(texttemplate.New("").Parse("{{.}} {{print .}}")), template.Must(template.New("").Parse("{{.}}")),
	} {
		if err := page.Execute(&text, a); err != nil {
			t.Error(err)
		}
	}
	for _, no := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), strings.Trim(fmt.Sprint([]byte("hunter2")), "[]")} {
		if strings.Contains(text.String(), no) {
			t.Errorf("%s is in %s", no, text.String())
		}
	}
}
