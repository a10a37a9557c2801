package server

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
)

// onSeen returns the event of an act that names what its requester saw: in If-Match, or as
// revision in the body. An act that stops something, or ends it, needs no revision; neither
// does a skip that decides on no state: see rollout.ErrUnseen. If it is missing, or If-Match and
// the body differ, onSeen answers, and returns false. Of several tags in If-Match, weak ones too,
// the one that is the present revision counts.
func onSeen(w http.ResponseWriter, r *http.Request, act rollout.Event, revision, present string) (rollout.Event, bool) {
	switch act.(type) {
	case rollout.Pause, rollout.Abort:
		return act, true
	}
	matches := tagsOf(r)
	match := ""
	if len(matches) > 0 {
		match = matches[0]
	}
	for _, one := range []string{present, revision} {
		if one != "" && slices.Contains(matches, one) {
			match = one
		}
	}
	if match != "" && revision != "" && match != revision {
		answer.Problem(w, http.StatusBadRequest, api.CodeBadRequest, "If-Match and the revision in the body differ: give one of them")
		return nil, false
	}
	seen := cmp.Or(revision, match)
	if seen == "" {
		if skip, ok := act.(rollout.Skip); ok {
			skip.Unseen = true
			return skip, true
		}
		unseen(w, "")
		return nil, false
	}
	return rollout.Seen{Decision: seen, Act: act}, true
}

// tagsOf returns the tags in If-Match. The tag * is left out: it names no state.
func tagsOf(r *http.Request) []string {
	var tags []string
	for tag := range strings.SplitSeq(strings.Join(r.Header.Values("If-Match"), ","), ",") { // a revision has no comma
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		if tag != "" && tag != "*" {
			tags = append(tags, tag)
		}
	}
	return tags
}

// unseen refuses a request that does not name what its requester saw.
func unseen(w http.ResponseWriter, why string) {
	answer.Problem(w, http.StatusPreconditionRequired, api.CodePreconditionNeeded,
		"%sthe request does not name what you saw: send the decision of the rollout as revision in the body, or its ETag in If-Match", why)
}
