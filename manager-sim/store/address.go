package store

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// postgresSchemes begin the URL of a PostgreSQL server; libpq knows both.
var postgresSchemes = []string{"postgres", "postgresql"}

// urlScheme is how a URL begins, and no path of a file that anybody means.
var urlScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

// isPostgres reports whether the name of a database is the URL of a PostgreSQL server, and
// not a file of SQLite. Any other URL is an error, which does not quote the name: a URL may
// have a password.
func isPostgres(name string) (bool, error) {
	scheme := urlScheme.FindString(name)
	if scheme == "" {
		return false, nil
	}
	scheme = strings.TrimSuffix(scheme, "://")
	for _, s := range postgresSchemes {
		if strings.EqualFold(scheme, s) {
			return true, nil
		}
	}
	return false, fmt.Errorf("the scheme %.20q of the database is not known: give postgres://USER@HOST/DATABASE, postgresql://USER@HOST/DATABASE, or the path of a SQLite file", scheme)
}

// redacted returns the URL of a PostgreSQL server without its password.
func redacted(name string) (string, error) {
	u, err := url.Parse(name)
	if err != nil {
		return "", errors.New("the URL of the database is not valid") // the error would show its password
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted(), nil
}
