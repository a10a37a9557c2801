package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// token is a bearer token of a program, without its secret.
type token struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Groups    []string  `json:"groups"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	ExpiresAt time.Time `json:"expires_at"`
	LastUsed  time.Time `json:"last_used_at"`
}

// SeesNothing reports whether the token has no group to see.
func (t token) SeesNothing() bool { return len(t.Groups) == 0 && t.Role != string(api.SuperAdmin) }

// Expired reports whether the manager refuses the token by now.
func (t token) Expired() bool { return !t.ExpiresAt.IsZero() && time.Now().After(t.ExpiresAt) }

// life is how long a new token is valid.
type life struct {
	Secs int
	Word string
}

var lives = []life{{3600, "1 hour"}, {86400, "1 day"}, {30 * 86400, "30 days"}, {90 * 86400, "90 days"}, {365 * 86400, "1 year"}, {400 * 86400, "400 days"}}

const defaultLife = 90 * 86400

// tokensView is what the page of tokens shows.
type tokensView struct {
	Tokens []token
	Names  map[string]string // of groups, by id
	Name   string            // of the form that was refused
	Life   int
	Lives  []life
	Access access
	Secret string // of the token that was just created; shown once
}

func (r *request) tokenList() (tokensView, error) {
	var list struct {
		Tokens []token `json:"tokens"`
	}
	if err := r.api(http.MethodGet, "/api/v1/tokens", nil, &list); err != nil {
		return tokensView{}, err
	}
	groups, names, err := r.groupList()
	names[api.AllGroups] = "all groups"
	return tokensView{Tokens: list.Tokens, Names: names, Life: defaultLife, Lives: lives, Access: accessOf(string(api.Viewer), nil, groups)}, err
}

func (r *request) tokens() error {
	v, err := r.tokenList()
	if err != nil {
		return err
	}
	return r.show("tokens", "Tokens", "tokens", false, v)
}

func (r *request) addToken() error {
	life, err := strconv.Atoi(r.PostFormValue("expires_in_secs"))
	if err != nil {
		life = defaultLife
	}
	var made struct {
		Token   string `json:"token"`
		Warning string `json:"warning"`
	}
	problem := r.api(http.MethodPost, "/api/v1/tokens", map[string]any{
		"name": r.PostFormValue("name"), "role": r.PostFormValue("role"), "groups": r.PostForm["groups"], "expires_in_secs": life}, &made)
	v, err := r.tokenList()
	if err != nil {
		return err
	}
	if problem != nil {
		v.Name, v.Life, v.Access = r.PostFormValue("name"), life, accessOf(r.PostFormValue("role"), r.PostForm["groups"], v.Access.Groups)
		return r.refused(problem, "tokens", "Tokens", "tokens", v)
	}
	v.Secret = made.Token
	notice := "Token " + r.PostFormValue("name") + " created."
	if made.Warning != "" {
		notice += " Warning: " + made.Warning
	}
	return r.notify(notice, "tokens", "Tokens", "tokens", v)
}

func (r *request) revokeTokenPage() error { return r.confirmRevoke(nil) }

func (r *request) confirmRevoke(problem error) error {
	v, err := r.tokenList()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.Tokens, func(t token) bool { return t.ID == r.PathValue("id") })
	if i < 0 {
		if problem != nil {
			return problem
		}
		return &apiError{status: http.StatusNotFound, text: "There is no such token. It may be revoked already."}
	}
	t := v.Tokens[i]
	return r.confirm(problem, confirmation{
		Title: "Revoke token " + t.Name, Nav: "tokens", Action: "/admin/tokens/" + url.PathEscape(t.ID) + "/revoke", Button: "Revoke token", Cancel: "/admin/tokens",
		Effects: []string{
			"The manager refuses every program that uses this token, at once.",
			"The tokens that were created with this token are revoked, too.",
			"A revoked token cannot be restored. Create another one for programs that still need access.",
		}})
}

func (r *request) revokeToken() error {
	if err := r.api(http.MethodDelete, "/api/v1/tokens/"+url.PathEscape(r.PathValue("id")), r.withReason(nil), nil); err != nil {
		return r.confirmRevoke(err)
	}
	return r.to("/admin/tokens")
}
