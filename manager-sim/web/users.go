package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// user is a user as the pages show it.
type user struct{ api.User }

// SeesNothing reports whether the user has no group to see.
func (u user) SeesNothing() bool { return len(u.Groups) == 0 && u.Role != string(api.SuperAdmin) }

// access is the part of a form for a role and its groups.
type access struct {
	Role   string
	Has    map[string]bool // group ids
	Groups []api.Group
}

// Roles are the choices of the form.
func (access) Roles() []api.Role { return api.Roles() }

func accessOf(role string, has []string, groups []api.Group) access {
	a := access{role, map[string]bool{}, groups}
	for _, id := range has {
		a.Has[id] = true
	}
	return a
}

// usersView is the data of the page of users.
type usersView struct {
	Users  []user
	Names  map[string]string // of groups, by id
	Name   string            // in the form, if it was refused
	Access access
}

func (r *request) userList() (usersView, error) {
	list, err := r.api.Users(r.Context())
	if err != nil {
		return usersView{}, err
	}
	groups, names, err := r.groupList()
	if err != nil {
		return usersView{}, err
	}
	names[api.AllGroups] = "all groups"
	v := usersView{Names: names, Access: accessOf(string(api.Viewer), nil, groups)}
	for _, u := range list {
		v.Users = append(v.Users, user{u})
	}
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
	added, refusal := r.api.CreateUser(r.Context(), api.NewUser{
		Name: r.PostFormValue("name"), Password: r.PostFormValue("password"), Role: r.PostFormValue("role"), Groups: r.PostForm["groups"]})
	if refusal == nil && added.Warning == "" {
		return r.to("/admin/users")
	}
	v, err := r.userList()
	if err != nil {
		return cmp.Or(refusal, err)
	}
	if refusal != nil {
		return r.refused(refusal, "users", "Users", "users", v)
	}
	v.Name, v.Access = "", accessOf(string(api.Viewer), nil, v.Access.Groups)
	return r.notify("User "+r.PostFormValue("name")+" added. Warning: "+added.Warning, "users", "Users", "users", v)
}

// userView is the data of the page of a user.
type userView struct {
	User   user
	Access access
}

func (r *request) user() error { return r.userPage(nil) }

func (r *request) userPage(refusal error) error {
	v, err := r.userList()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.Users, func(u user) bool { return u.Name == r.PathValue("name") })
	if i < 0 {
		return cmp.Or(refusal, problem(http.StatusNotFound, "There is no such user."))
	}
	u := v.Users[i]
	view := userView{u, accessOf(u.Role, u.Groups, v.Access.Groups)}
	if refusal != nil {
		return r.refused(refusal, "user", "User "+u.Name, "users", view)
	}
	return r.show("user", "User "+u.Name, "users", false, view)
}

func (r *request) setAccess() error {
	role, groups := r.PostFormValue("role"), append([]string{}, r.PostForm["groups"]...)
	return r.changeUser(api.UserChange{Role: &role, Groups: &groups})
}

func (r *request) setPassword() error {
	password := r.PostFormValue("password")
	return r.changeUser(api.UserChange{Password: &password})
}

func (r *request) changeUser(change api.UserChange) error {
	if _, err := r.api.UpdateUser(r.Context(), r.PathValue("name"), change); err != nil {
		return r.userPage(err)
	}
	return r.to("/admin/users")
}

func (r *request) removeUserPage() error { return r.confirmRemoveUser(nil) }

func (r *request) confirmRemoveUser(refusal error) error {
	name := r.PathValue("name")
	return r.confirm(refusal, confirmation{
		Title: "Remove user " + name, Nav: "users", Action: "/admin/users/" + url.PathEscape(name) + "/remove", Button: "Remove user", Cancel: "/admin/users",
		Effects: []string{
			name + " cannot sign in any more. All sessions of " + name + " end at once.",
			"The audit trail keeps the actions of " + name + ".",
			"The tokens that " + name + " created are revoked, too.",
		}})
}

func (r *request) removeUser() error {
	if err := r.api.RemoveUser(r.Context(), r.PathValue("name"), r.reason()); err != nil {
		return r.confirmRemoveUser(err)
	}
	return r.to("/admin/users")
}

func (r *request) passwordPage() error {
	return r.show("password", "Your password", "", false, nil)
}

func (r *request) setOwnPassword() error {
	err := problem(http.StatusBadRequest, "The two new passwords are not the same.")
	if r.PostFormValue("new") == r.PostFormValue("again") {
		err = r.api.ChangePassword(r.Context(), api.PasswordChange{Old: r.PostFormValue("old"), New: r.PostFormValue("new")})
	}
	if api.IsCode(err, api.CodeWrongPassword) {
		err = problem(http.StatusBadRequest, "The current password is wrong.") // no lack of rights
	}
	if err != nil {
		return r.refused(err, "password", "Your password", "", nil)
	}
	return r.notify("Your password was changed.", "password", "Your password", "", nil)
}
