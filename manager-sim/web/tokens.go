package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// token is a program's bearer token as the pages show it.
type token struct{ api.Token }

// SeesNothing reports whether the token has no group to see.
func (t token) SeesNothing() bool { return len(t.Groups) == 0 && t.Role != string(api.SuperAdmin) }

// Expired reports whether the token has expired.
func (t token) Expired() bool { return !t.ExpiresAt.IsZero() && time.Now().After(t.ExpiresAt) }

// life is a lifetime that the form offers.
type life struct {
	Secs int64
	Word string
}

var lives = []life{{3600, "1 hour"}, {86400, "1 day"}, {30 * 86400, "30 days"}, {90 * 86400, "90 days"}, {365 * 86400, "1 year"}, {400 * 86400, "400 days"}}

const defaultLife = int64(api.DefaultTokenLife / time.Second)

// tokensView is the data of the page of tokens.
type tokensView struct {
	Tokens []token
	Names  map[string]string // of groups, by id
	Name   string            // in the form, if it was refused
	Life   int64
	Lives  []life
	Access access
	Secret string // of a token that was just created; shown once
}

func (r *request) tokenList() (tokensView, error) {
	list, err := r.api.Tokens(r.Context())
	if err != nil {
		return tokensView{}, err
	}
	tokens := make([]token, len(list))
	for i, t := range list {
		tokens[i] = token{t}
	}
	groups, names, err := r.groupList()
	names[api.AllGroups] = "all groups"
	return tokensView{Tokens: tokens, Names: names, Life: defaultLife, Lives: lives, Access: accessOf(string(api.Viewer), nil, groups)}, err
}

func (r *request) tokens() error {
	v, err := r.tokenList()
	if err != nil {
		return err
	}
	return r.show("tokens", "Tokens", "tokens", false, v)
}

func (r *request) addToken() error {
	life, err := strconv.ParseInt(r.PostFormValue("expires_in_secs"), 10, 64)
	if err != nil {
		life = defaultLife
	}
	made, refusal := r.api.CreateToken(r.Context(), api.NewToken{
		Name: r.PostFormValue("name"), Role: r.PostFormValue("role"), Groups: r.PostForm["groups"], ExpiresInSecs: life})
	v, err := r.tokenList()
	if err != nil {
		return err
	}
	if refusal != nil {
		v.Name, v.Life, v.Access = r.PostFormValue("name"), life, accessOf(r.PostFormValue("role"), r.PostForm["groups"], v.Access.Groups)
		return r.refused(refusal, "tokens", "Tokens", "tokens", v)
	}
	v.Secret = made.Token
	notice := "Token " + r.PostFormValue("name") + " created."
	if made.Warning != "" {
		notice += " Warning: " + made.Warning
	}
	return r.notify(notice, "tokens", "Tokens", "tokens", v)
}

func (r *request) revokeTokenPage() error { return r.confirmRevoke(nil) }

func (r *request) confirmRevoke(refusal error) error {
	v, err := r.tokenList()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.Tokens, func(t token) bool { return t.ID == r.PathValue("id") })
	if i < 0 {
		return cmp.Or(refusal, problem(http.StatusNotFound, "There is no such token. It may be revoked already."))
	}
	t := v.Tokens[i]
	return r.confirm(refusal, confirmation{
		Title: "Revoke token " + t.Name, Nav: "tokens", Action: "/admin/tokens/" + url.PathEscape(t.ID) + "/revoke", Button: "Revoke token", Cancel: "/admin/tokens",
		Effects: []string{
			"The manager refuses every program that uses this token, at once.",
			"The tokens that were created with this token are revoked, too.",
			"A revoked token cannot be restored. Create another one for programs that still need access.",
		}})
}

func (r *request) revokeToken() error {
	if err := r.api.RevokeToken(r.Context(), r.PathValue("id"), r.reason()); err != nil {
		return r.confirmRevoke(err)
	}
	return r.to("/admin/tokens")
}
