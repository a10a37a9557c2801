package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// written is before any release of this code.
var written = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// built is when this program was built, in seconds since 1970. The linker sets it (-X), so that
// the date does not age with the source. Without it, or before written, written counts.
var built string

// maxAge is longer than a device runs a release: a clock that shows so much more than the
// latest certain time is ahead.
const maxAge = 8 * 365 * 24 * time.Hour

// wraps are the times that a clock shows, or goes on from, when a counter of NTP, of Unix or of a
// clock chip ends. A clock that has shown one for less than wrapAge is ahead, unless the certain
// time is near it, too.
var wraps = []time.Time{
	time.Date(2036, time.February, 7, 0, 0, 0, 0, time.UTC),
	time.Date(2038, time.January, 19, 0, 0, 0, 0, time.UTC),
	time.Date(2099, time.December, 31, 0, 0, 0, 0, time.UTC),
	time.Date(2106, time.February, 7, 0, 0, 0, 0, time.UTC),
}

const wrapAge = 2 * 365 * 24 * time.Hour

// slack is how much a clock may be behind the certain time: a clock that is some seconds late
// is no wrong one.
const slack = time.Hour

// Clock is the clock of this device, and what is known without it.
type Clock struct {
	// Certain is the latest time that has certainly passed, and Proof what is of that time.
	Certain time.Time
	Proof   string

	now func() time.Time
}

// NewClock returns the clock of this device, or that of now if it is set. The certain time
// is that of this code, or a later one that signed is of; proof names that.
func NewClock(now func() time.Time, signed time.Time, proof string) Clock {
	c := Clock{written, "this program was built", now}
	if secs, err := strconv.ParseInt(built, 10, 64); err == nil && secs > written.Unix() {
		c.Certain = time.Unix(secs, 0).UTC()
	}
	if c.now == nil {
		c.now = deviceTime
	}
	if signed.After(c.Certain) {
		c.Certain, c.Proof = signed, proof
	}
	return c
}

// Now returns what the clock shows.
func (c Clock) Now() time.Time { return c.now() }

// Problem returns how the clock is certainly wrong, or "".
func (c Clock) Problem() string {
	now := c.now()
	facts := fmt.Sprintf("it shows %s, and %s at %s", now.UTC().Format(time.RFC3339), c.Proof, c.Certain.UTC().Format(time.RFC3339))
	switch {
	case now.Add(slack).Before(c.Certain):
		return "this device's clock is not set: " + facts
	case now.Sub(c.Certain) > maxAge, slices.ContainsFunc(wraps, func(w time.Time) bool {
		return !now.Before(w) && now.Before(w.Add(wrapAge)) && w.Sub(c.Certain) > wrapAge
	}):
		return "this device's clock is ahead: " + facts
	}
	return ""
}

// Explain returns what the clock has to do with err, and what a person can do about it; ""
// if err is not about the dates of a certificate.
func (c Clock) Explain(err error) string {
	var refused *tls.CertificateVerificationError
	var invalid x509.CertificateInvalidError
	dated := errors.As(err, &invalid) && invalid.Reason == x509.Expired
	// Of an authority only the text has the reason.
	if !errors.As(err, &refused) || !dated && !strings.Contains(refused.Err.Error(), "has expired or is not yet valid") {
		return ""
	}
	if problem := c.Problem(); problem != "" {
		return problem + "; set it"
	}
	now := c.now()
	shows := "this device's clock shows " + now.UTC().Format(time.RFC3339)
	if dated && now.Before(invalid.Cert.NotBefore) {
		return shows + ", before the certificate begins: if the clock is behind, set it"
	}
	return shows + ": if it is ahead, set it; otherwise renew the certificate"
}
