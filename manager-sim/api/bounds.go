package api

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Bounds of requests. The manager refuses a request outside of them.
const (
	MaxBody           = 64 << 10 // bytes of a request's body
	MaxIdempotencyKey = 255      // bytes
	MaxReason         = 500      // bytes of a reason for the audit trail

	DefaultLimit = 100 // entries of a list
	MaxLimit     = 1000

	DefaultEventsPerPage = 50
	MaxEventsPerPage     = 200
	MaxEventPage         = 1_000_000

	// MinPrefix is the least number of characters that abbreviate a node's id.
	MinPrefix = 4

	MaxSettleSecs = 86400
	MinLimitSecs  = 60
	MaxLimitSecs  = 86400
	MinLifeSecs   = 60
	MaxLifeSecs   = 30 * 86400
	MaxThreshold  = 100_000

	DefaultTokenLife = 90 * 24 * time.Hour
	MinTokenLife     = time.Hour
	MaxTokenLife     = 400 * 24 * time.Hour

	MinPassword = 12   // characters
	MaxPassword = 1024 // bytes
)

var (
	groupNames = regexp.MustCompile(`^[\pL\pN][\pL\pN ._-]{0,63}$`)
	userNames  = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._@-]{0,63}$`)
)

// CheckGroupName returns an error unless name can be the name of a group.
func CheckGroupName(name string) error {
	if !groupNames.MatchString(name) {
		return fmt.Errorf("name %.80q is not 1 to 64 letters, digits, spaces and ._-, beginning with a letter or digit", name)
	}
	return nil
}

// CheckUserName returns an error unless name can be the name of a user or a token.
func CheckUserName(name string) error {
	if !userNames.MatchString(name) {
		return fmt.Errorf("name %.80q is not 1 to 64 letters, digits and ._@-, beginning with a letter or digit", name)
	}
	return nil
}

// CheckRole returns an error unless role is one of Roles.
func CheckRole(role string) error {
	if !slices.Contains(Roles(), Role(role)) {
		return fmt.Errorf("role %.40q is not one of %v", role, Roles())
	}
	return nil
}

// CheckReason returns an error if a reason is too long.
func CheckReason(reason string) error {
	if len(reason) > MaxReason {
		return fmt.Errorf("reason has %d bytes, more than %d", len(reason), MaxReason)
	}
	return nil
}
