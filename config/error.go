package config

import (
	"fmt"
	"strings"
)

// Error is one key that breaks its rule. In an error of this package errors.As finds the first
// one, and Errors finds all of them.
type Error struct {
	Key  string // with its section: "upgrade.drain_secs"
	Rule string // what is wrong: "-1 is outside 0 to 3600 seconds"; it quotes no secret
	text string
	err  error // the cause, or nil
}

// NewError returns an Error whose text is the key, followed by what format and args say.
func NewError(key, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Key: key, Rule: strings.TrimLeft(err.Error(), ":= "), text: key + err.Error()}
	if w, ok := err.(interface{ Unwrap() error }); ok {
		e.err = w.Unwrap()
	}
	return e
}

func (e *Error) Error() string { return e.text }

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.err }

// Errors returns each Error in err, in the order of their texts.
func Errors(err error) []*Error {
	switch e := err.(type) {
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, err := range e.Unwrap() {
			all = append(all, Errors(err)...)
		}
		return all
	case interface{ Unwrap() error }:
		return Errors(e.Unwrap())
	}
	return nil
}

// listed are errors whose text is one line.
type listed struct {
	text string
	errs []error
}

func (l *listed) Error() string   { return l.text }
func (l *listed) Unwrap() []error { return l.errs }
