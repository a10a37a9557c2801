package web_test

import (
	"net/url"
	"strings"
	"testing"
)

// A used link for the first administrator shows the sign-in page.
func TestUsedClaimLink(t *testing.T) {
	t.Parallel()
	s := open(t)
	claim, err := s.m.Users.NewClaim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := s.stranger()
	if text := p.get("/admin/claim?token="+claim, 200); !strings.Contains(text, `name="token"`) {
		t.Errorf("a link that is good: %s", text)
	}
	if _, text := p.post("/admin/claim", 400, url.Values{"token": {claim}, "name": {"root"}, "password": {"short"}}); !strings.Contains(text, "12 to 1024 characters") || !strings.Contains(text, claim) {
		t.Errorf("a short password: %s", text)
	}
	p.post("/admin/claim", 303, url.Values{"token": {claim}, "name": {"root"}, "password": {password}})
	q := s.stranger()
	page := q.get("/admin/claim?token="+claim, 200)
	_, form := q.post("/admin/claim", 400, url.Values{"token": {claim}, "name": {"eve"}, "password": {password}})
	for _, text := range []string{page, form} {
		if !strings.Contains(text, "This link was used") || !strings.Contains(text, `action="/admin/sign-in"`) || strings.Contains(text, claim) || strings.Contains(text, "Nobody can sign in") {
			t.Errorf("a link that was used: %s", text)
		}
	}
	for range 5 {
		q.post("/admin/sign-in", 401, url.Values{"name": {"root"}, "password": {"wrong"}})
	}
	resp, text := q.post("/admin/sign-in", 429, url.Values{"name": {"root"}, "password": {password}})
	if !strings.Contains(text, "try again in ") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("after five failures: %v %s", resp.Header, text)
	}
}
