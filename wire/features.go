package wire

import (
	"net/http"
	"strings"
)

// HasFeature reports whether the header of a manager's answer announces a feature in
// FeaturesHeader.
func HasFeature(h http.Header, feature string) bool {
	for _, value := range h.Values(FeaturesHeader) {
		for f := range strings.SplitSeq(value, ",") {
			if strings.TrimSpace(f) == feature {
				return true
			}
		}
	}
	return false
}
