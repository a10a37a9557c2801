// Package limit has the counters by which the manager bounds what one address, one
// name or everybody together can use: attempts per minute, and things that are open
// at the same time.
//
// The counters are in memory. They decide who may continue; callers answer and close.
package limit

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// SourceOf returns the key by which requests from an address are counted: the address
// itself, and for IPv6 its network of 56 bits, which one site usually has.
func SourceOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return addr
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 56).Masked().String()
}

// TryLater refuses something that can be tried again after Wait.
type TryLater struct {
	Wait   time.Duration
	Reason string
	Cause  error // what errors.Is finds
}

// Error returns Reason and the waiting time.
func (e *TryLater) Error() string { return fmt.Sprintf("%s; try again in %d s", e.Reason, e.Seconds()) }

// Unwrap returns Cause.
func (e *TryLater) Unwrap() error { return e.Cause }

// Seconds returns Wait rounded up, for the header Retry-After.
func (e *TryLater) Seconds() int { return max(1, int((e.Wait+time.Second-1)/time.Second)) }
