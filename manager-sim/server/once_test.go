package server_test

import (
	"errors"
	"fmt"
	"github.com/bilbycast/edge-agent/internal/box"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// Guesses that are made at once count like those that are made one by one, and delay no
// other user.
func TestGuessesAtOnce(t *testing.T) {
	t.Parallel()
	box.Slow(t)
	m := start(t)
	for _, name := range []string{"alice", "bob"} {
		m.into(201, "POST", "/api/v1/users", `{"name":"`+name+`","password":"`+password+`","role":"viewer","groups":["*"]}`, nil)
	}
	if _, err := m.Users.SignIn(t.Context(), "198.51.100.1:1", "alice", password); err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]func(i int) string{
		"one source":       func(int) string { return "192.0.2.1:7" },
		"one site of IPv6": func(i int) string { return fmt.Sprintf("[2001:db8:0:%x::1]:7", i) },
	} {
		var waits sync.Map
		guess := func(i int) string {
			pw := fmt.Sprint("guess number ", i)
			if i == 90 {
				pw = password
			}
			_, err := m.Users.SignIn(t.Context(), source(i), "alice", pw)
			var later *limit.TryLater
			switch {
			case errors.As(err, &later):
				waits.Store(later.Seconds(), true)
				if !strings.Contains(err.Error(), fmt.Sprintf("try again in %d s", later.Seconds())) {
					t.Errorf("%v does not say for how long", err)
				}
				return "later"
			case errors.Is(err, identity.ErrWrong):
				return "evaluated"
			}
			return fmt.Sprint(err)
		}
		got := parallel(120, guess)
		if got["evaluated"] > 5 || got["evaluated"]+got["later"]+got["<nil>"] != 120 {
			t.Errorf("%s: %v", name, got)
		}
		for i := 200; got["evaluated"] < 5; i++ { // until the source is locked out
			got[guess(i)]++
		}
		if guess(90) != "later" {
			t.Errorf("%s: the right password is accepted after five failures", name)
		}
	}
	// Meanwhile, and afterwards, alice signs in where she did before, and where
	// nobody guessed; and bob does.
	for source, name := range map[string]string{"198.51.100.1:2": "alice", "203.0.113.5:1": "alice", "203.0.113.6:1": "bob"} {
		if _, err := m.Users.SignIn(t.Context(), source, name, password); err != nil {
			t.Errorf("%s from %s: %v", name, source, err)
		}
	}
	// Somebody who signed in from an address is not locked out there by guesses at
	// other names.
	if _, err := m.Users.SignIn(t.Context(), "203.0.113.6:1", "bob", password); err != nil {
		t.Error(err)
	}
	for i := range 6 {
		m.Users.SignIn(t.Context(), "203.0.113.6:9", fmt.Sprint("name", i), password)
	}
	if _, err := m.Users.SignIn(t.Context(), "203.0.113.6:1", "bob", password); err != nil {
		t.Errorf("bob, beside a guesser: %v", err)
	}
	if _, err := m.Users.SignIn(t.Context(), "203.0.113.6:1", "alice", password); !errors.Is(err, identity.ErrLocked) {
		t.Errorf("a name that never signed in there: %v", err)
	}
}

// A link for the first super admin makes one, however often it is used at once. A refused
// password does not use it up.
func TestClaimsAtOnce(t *testing.T) {
	t.Parallel()
	m := start(t)
	old, err := m.Users.NewClaim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	claim, err := m.Users.NewClaim(t.Context()) // as of another start
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Users.Claim(t.Context(), old, "root", password); !errors.Is(err, identity.ErrClaim) {
		t.Errorf("the link of the start before: %v", err)
	}
	if err := m.Users.Claim(t.Context(), claim, "root", "short"); err == nil || errors.Is(err, identity.ErrClaim) {
		t.Errorf("a short password: %v", err)
	}
	m.into(201, "POST", "/api/v1/users", `{"name":"user0","password":"`+password+`","role":"viewer"}`, nil)
	if err := m.Users.Claim(t.Context(), claim, "user0", password); !errors.Is(err, store.ErrExists) {
		t.Errorf("the name of a viewer: %v", err)
	}
	got := parallel(8, func(i int) string {
		err := m.Users.Claim(t.Context(), claim, fmt.Sprint("root", i), password)
		if errors.Is(err, identity.ErrClaim) {
			return "used"
		}
		return fmt.Sprint(err)
	})
	if got["<nil>"] != 1 || got["used"] != 7 {
		t.Errorf("got %v", got)
	}
	if open, err := m.Users.ClaimOpen(t.Context()); open || err != nil {
		t.Errorf("after it: %t, %v", open, err)
	}
}

// Every rule that lets one request pass, or keeps one entry, holds for requests that are
// made at once.
func TestRulesThatRequestsAtOnceCannotBreak(t *testing.T) {
	t.Parallel()
	m := start(t)
	user := func(name, role string) {
		m.into(201, "POST", "/api/v1/users", `{"name":"`+name+`","password":"`+password+`","role":"`+role+`","groups":["*"]}`, nil)
	}
	user("a", "super_admin")
	user("b", "super_admin")
	user("v", "viewer")
	one := func(what string, ok int, got map[int]int, others ...int) {
		t.Helper()
		sum := 0
		for _, c := range others {
			sum += got[c]
		}
		total := 0
		for _, n := range got {
			total += n
		}
		if got[ok] != 1 || sum != total-1 {
			t.Errorf("%s: %v", what, got)
		}
	}
	one("the last two super admins", 204, parallel(2, func(i int) int { return m.status("DELETE", "/api/v1/users/"+"ab"[i:i+1], "") }), 409)
	left := "a"
	if m.status("PATCH", "/api/v1/users/a", `{"groups":["*"]}`) == 404 {
		left = "b"
	}
	for method, body := range map[string]string{"DELETE": "", "PATCH": `{"role":"viewer"}`} {
		if code, text := m.call(method, "/api/v1/users/"+left, body); code != 409 || !strings.Contains(text, `"code":"last_super_admin"`) {
			t.Errorf("%s of the last: %d %s", method, code, text)
		}
	}
	user("c", "super_admin")
	got := parallel(2, func(i int) int {
		return m.status("PATCH", "/api/v1/users/"+[]string{left, "c"}[i], `{"role":"viewer"}`)
	})
	one("demotions", 200, got, 409)
	if m.status("DELETE", "/api/v1/users/v", "") != 204 {
		t.Error("a viewer cannot be removed")
	}

	one("a user's name", 201, parallel(6, func(int) int {
		code := m.status("POST", "/api/v1/users", `{"name":"twin","password":"`+password+`","role":"viewer"}`)
		if code == 429 { // too many are hashed at once
			return 409
		}
		return code
	}), 409)
	one("a group's name", 201, parallel(8, func(int) int { return m.status("POST", "/api/v1/groups", `{"name":"twin"}`) }), 409)
	var tokens struct{ Tokens []struct{ ID string } }
	m.into(201, "POST", "/api/v1/tokens", `{"name":"t","role":"viewer"}`, nil)
	m.into(200, "GET", "/api/v1/tokens", "", &tokens)
	one("a revocation", 204, parallel(8, func(int) int { return m.status("DELETE", "/api/v1/tokens/"+tokens.Tokens[0].ID, "") }), 404)
	g, _ := m.group(2, nil)
	one("a group's rollout", 202, parallel(8, func(int) int {
		return m.status("POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.2.0"}`)
	}), 409)
	one("a request with a key", 201, parallel(8, func(int) int {
		resp := m.do(admin, "POST", "/api/v1/groups", `{"name":"keyed"}`, http.Header{"Idempotency-Key": {"k"}})
		resp.Body.Close()
		if resp.Header.Get("Idempotency-Replayed") != "" {
			return 409
		}
		return resp.StatusCode
	}), 409)

	// A password: of two changes from the same old one, one counts.
	user("ann", "viewer")
	_, i := m.signedIn("ann", password)
	pw := []string{"the password one", "the password two"}
	got = parallel(2, func(k int) int {
		code, _ := m.page(i, "PUT", "/api/v1/password", `{"old":"`+password+`","new":"`+pw[k]+`"}`)
		return code
	})
	one("a password", 204, got, 409, 403)
}

// A sign-in that is being checked while the password is changed or the user is removed
// makes no session.
func TestASignInDoesNotOutliveAPassword(t *testing.T) {
	t.Parallel()
	m := start(t)
	entry := api.AuditEntry{Time: time.Now(), Details: []byte("{}")}
	u := store.User{Name: "ann", Hash: "old", Role: "viewer", CreatedAt: time.Now()}
	if err := m.Store.AddUser(t.Context(), u, entry); err != nil {
		t.Fatal(err)
	}
	session := func() error {
		return m.Store.AddSession(t.Context(), store.Session{Hash: secret.New(), User: "ann", PasswordHash: "old", Expires: time.Now().Add(time.Hour)}, entry)
	}
	if err := session(); err != nil {
		t.Fatal(err)
	}
	hash := "new"
	if _, err := m.Store.UpdateUser(t.Context(), "ann", store.UserChange{Hash: &hash}, entry); err != nil {
		t.Fatal(err)
	}
	if err := session(); !errors.Is(err, store.ErrConflict) {
		t.Errorf("after a change of the password: %v", err)
	}
	if err := m.Store.RemoveUser(t.Context(), "ann", entry); err != nil {
		t.Fatal(err)
	}
	if err := session(); !errors.Is(err, store.ErrConflict) {
		t.Errorf("after the user was removed: %v", err)
	}
}
