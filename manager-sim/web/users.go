package web

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

type user struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Groups    []string  `json:"groups"`
	CreatedAt time.Time `json:"created_at"`
}

// SeesNothing reports whether the user has no group to see.
func (u user) SeesNothing() bool { return len(u.Groups) == 0 && u.Role != string(api.SuperAdmin) }

// access is the part of a form that gives a role for groups.
type access struct {
	Role   string
	Has    map[string]bool // group ids
	Groups []group
}

// Roles are what the form offers.
func (access) Roles() []api.Role { return api.Roles() }

func accessOf(role string, has []string, groups []group) access {
	a := access{role, map[string]bool{}, groups}
	for _, id := range has {
		a.Has[id] = true
	}
	return a
}

// usersView is what the page of users shows.
type usersView struct {
	Users  []user
	Names  map[string]string // of groups, by id
	Name   string            // of the form that was refused
	Access access
}

func (r *request) userList() (usersView, error) {
	var list struct {
		Users []user `json:"users"`
	}
	if err := r.api(http.MethodGet, "/api/v1/users", nil, &list); err != nil {
		return usersView{}, err
	}
	groups, names, err := r.groupList()
	if err != nil {
		return usersView{}, err
	}
	names[api.AllGroups] = "all groups"
	v := usersView{Users: list.Users, Names: names, Access: accessOf(string(api.Viewer), nil, groups)}
	if r.Method == http.MethodPost {
		v.Name, v.Access = r.PostFormValue("name"), accessOf(r.PostFormValue("role"), r.PostForm["groups"], groups)
	}
	return v, nil
}

func (r *request) users() error {
	v, err := r.userList()
	if err != nil {
		return err
	}
	return r.show("users", "Users", "users", false, v)
}

func (r *request) addUser() error {
	var added struct {
		Warning string `json:"warning"`
	}
	problem := r.api(http.MethodPost, "/api/v1/users", map[string]any{
		"name": r.PostFormValue("name"), "password": r.PostFormValue("password"), "role": r.PostFormValue("role"), "groups": r.PostForm["groups"]}, &added)
	if problem == nil && added.Warning == "" {
		return r.to("/admin/users")
	}
	v, err := r.userList()
	if err != nil {
		return cmp.Or(problem, err)
	}
	if problem != nil {
		return r.refused(problem, "users", "Users", "users", v)
	}
	v.Name, v.Access = "", accessOf(string(api.Viewer), nil, v.Access.Groups)
	return r.notify("User "+r.PostFormValue("name")+" added. Warning: "+added.Warning, "users", "Users", "users", v)
}

// userView is what the page of a user shows.
type userView struct {
	User   user
	Access access
}

func (r *request) userPath() string { return "/api/v1/users/" + url.PathEscape(r.PathValue("name")) }

func (r *request) user() error { return r.userPage(nil) }

func (r *request) userPage(problem error) error {
	v, err := r.userList()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.Users, func(u user) bool { return u.Name == r.PathValue("name") })
	if i < 0 {
		return cmp.Or(problem, error(&apiError{status: http.StatusNotFound, text: "There is no such user."}))
	}
	u := v.Users[i]
	view := userView{u, accessOf(u.Role, u.Groups, v.Access.Groups)}
	if problem != nil {
		return r.refused(problem, "user", "User "+u.Name, "users", view)
	}
	return r.show("user", "User "+u.Name, "users", false, view)
}

func (r *request) setAccess() error {
	return r.changeUser(map[string]any{"role": r.PostFormValue("role"), "groups": append([]string{}, r.PostForm["groups"]...)})
}

func (r *request) setPassword() error {
	return r.changeUser(map[string]any{"password": r.PostFormValue("password")})
}

func (r *request) changeUser(change map[string]any) error {
	if err := r.api(http.MethodPatch, r.userPath(), change, nil); err != nil {
		return r.userPage(err)
	}
	return r.to("/admin/users")
}

func (r *request) removeUserPage() error { return r.confirmRemoveUser(nil) }

func (r *request) confirmRemoveUser(problem error) error {
	name := r.PathValue("name")
	return r.confirm(problem, confirmation{
		Title: "Remove user " + name, Nav: "users", Action: "/admin/users/" + url.PathEscape(name) + "/remove", Button: "Remove user", Cancel: "/admin/users",
		Effects: []string{
			name + " cannot sign in any more, and is signed out everywhere at once.",
			"The audit trail keeps what " + name + " did.",
			"The tokens that " + name + " created are revoked, too.",
		}})
}

func (r *request) removeUser() error {
	if err := r.api(http.MethodDelete, r.userPath(), r.withReason(nil), nil); err != nil {
		return r.confirmRemoveUser(err)
	}
	return r.to("/admin/users")
}

func (r *request) passwordPage() error {
	return r.show("password", "Your password", "", false, nil)
}

func (r *request) setOwnPassword() error {
	err := error(&apiError{status: http.StatusBadRequest, text: "The two new passwords are not the same."})
	if r.PostFormValue("new") == r.PostFormValue("again") {
		err = r.api(http.MethodPut, "/api/v1/password", map[string]string{"old": r.PostFormValue("old"), "new": r.PostFormValue("new")}, nil)
	}
	var api *apiError
	if errors.As(err, &api) && api.code == "wrong_password" {
		err = &apiError{status: http.StatusBadRequest, text: "The current password is wrong."} // the person may use the page
	}
	if err != nil {
		return r.refused(err, "password", "Your password", "", nil)
	}
	return r.notify("Your password is changed.", "password", "Your password", "", nil)
}
