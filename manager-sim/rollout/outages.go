package rollout

import "time"

// Outage is a time in which no manager ran.
type Outage struct{ Began, Ended time.Time }

// Outages are in the order of their begin, and do not overlap. No time limit runs in them.
type Outages []Outage

// Elapsed returns how long the manager ran between two times.
func (o Outages) Elapsed(from, to time.Time) time.Duration {
	d := to.Sub(from)
	for _, x := range o {
		d -= max(0, earlier(x.Ended, to).Sub(later(x.Began, from)))
	}
	return d
}

// After returns when the manager has run for d since a time.
func (o Outages) After(from time.Time, d time.Duration) time.Time {
	end := from.Add(d)
	for _, x := range o {
		if x.Ended.After(from) && x.Began.Before(end) {
			end = end.Add(x.Ended.Sub(later(x.Began, from)))
		}
	}
	return end
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
