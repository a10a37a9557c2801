// Package api is the REST API of manager-sim as Go types: requests, answers,
// error codes, bounds, and a client.
//
//	c := api.Client{BaseURL: "https://127.0.0.1:8443", Token: token, HTTP: httpClient}
//	nodes, err := c.AllNodes(ctx, api.NodeQuery{})
//
// The server encodes the same types that the client decodes, so the two cannot
// differ. A refusal is a *Problem, with a stable code for programs and a sentence
// for people. A call that got no answer wraps ErrUnreachable.
//
// The client checks no value before it sends it: the manager does, and the
// bounds in this package are the manager's. The client retries nothing. A call
// with WithIdempotencyKey can be repeated safely by the caller.
package api

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// Problem is the body of every refusal: RFC 9457, application/problem+json.
type Problem struct {
	Type   string `json:"type"` // always "about:blank": Code says more
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // for a person
	Code   string `json:"code"`   // for a program; stable

	// RetryAfter is the header Retry-After; 0: the answer has none.
	RetryAfter time.Duration `json:"-"`
}

// Error returns Detail.
func (p *Problem) Error() string { return p.Detail }

// Unreadable reports whether a call failed because a record exists, and the manager cannot read
// it. The Detail names the record and the remedy.
func Unreadable(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status == http.StatusInternalServerError && strings.Contains(p.Detail, "cannot be read")
}

// Temporary reports whether the same request can succeed later without a change:
// the manager failed, is stopping, or limits the rate.
func (p *Problem) Temporary() bool {
	return p.Status >= 500 || p.Status == http.StatusTooManyRequests
}

// ErrUnreachable marks the error of a call that got no complete answer.
var ErrUnreachable = errors.New("the manager gives no answer")

// IsUnreachable reports whether err means that the manager cannot be reached or
// cannot answer now.
func IsUnreachable(err error) bool {
	var p *Problem
	if errors.As(err, &p) {
		return p.Temporary()
	}
	return errors.Is(err, ErrUnreachable)
}

// IsCode reports whether err is a *Problem with the code.
func IsCode(err error, code string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == code
}

// Codes of a Problem. A request to upgrade can also be refused with a code of
// NotUpgradable, or with release.VersionInvalid.
const (
	CodeBadRequest          = "bad_request"
	CodeUnauthorized        = "unauthorized"
	CodeForbidden           = "forbidden"
	CodeNotFound            = "not_found"
	CodeNoSuchCall          = "no_such_call"
	CodeConflict            = "conflict"              // the name is taken, or the entry changed meanwhile
	CodeRepeated            = "repeated"              // the Idempotency-Key was used, and the answer is not known
	CodeKeyReused           = "key_reused"            // the Idempotency-Key was used for another request
	CodeNotSchedulable      = "not_schedulable"       // no node of the group is eligible
	CodeRolloutActive       = "rollout_active"        // the group has an active rollout
	CodeNotNow              = "not_now"               // the rollout's status does not allow the act
	CodePreconditionNeeded  = "precondition_required" // the request names no revision of the rollout that the requester saw
	CodePreconditionFailed  = "precondition_failed"   // the rollout has changed since the requester saw it
	CodeContested           = "contested"             // two devices claim the pending node
	CodeLastSuperAdmin      = "last_super_admin"      // no super admin would remain
	CodeNoPassword          = "no_password"           // a token has no password to change
	CodeWrongPassword       = "wrong_password"        // the old password is wrong
	CodeTooManyAttempts     = "too_many_attempts"     // passwords are limited; see RetryAfter
	CodeTooManyStreams      = "too_many_streams"      // see RetryAfter
	CodeReleasesUnavailable = "releases_unavailable"  // the release host failed
	CodeUnavailable         = "unavailable"           // the manager, or its database, cannot be used now; see RetryAfter
	CodeNotReady            = "not_ready"             // the manager is stopping, or its database cannot be written
	CodeInternal            = "internal"
)

// Codes of NotUpgradable.
const (
	CodeRemoved           = "removed"
	CodeDuplicateIdentity = "duplicate_identity" // also the error_code of the event that reports it
	CodeNoCapability      = "no_capability"
	CodeUpgradeInProgress = "upgrade_in_progress"
	CodeNotPublished      = "not_published"
)

// CodeReplaced is the error_code of a command that another one replaced before it
// was sent.
const CodeReplaced = "replaced"
