package store

import (
	"context"
	"time"
)

// Outage is a time in which no manager ran.
type Outage struct{ Began, Ended time.Time }

const (
	// outagesKept is how many outages are kept.
	outagesKept = 10_000
	// shortRun is how long a manager in a crash loop runs at most. Two outages with a short
	// run between them are one: a crash loop does not push older outages out.
	shortRun = 15 * time.Second
)

// RecordAlive records that the manager runs at now. If the record before is older than
// gap, the time between the two is an outage, which is stored; the first record is none.
// After a clock was set back no outage ends in the future: one that does ends now, and one
// that would begin later is deleted.
func (s *Store) RecordAlive(ctx context.Context, now time.Time, gap time.Duration) error {
	return s.RecordBeat(ctx, now, gap, Beat{Uptime: -1})
}

// addOutage stores an outage, or extends the one before.
func addOutage(ctx context.Context, tx conn, began, ended int64) error {
	r, err := tx.exec(ctx, "UPDATE outages SET ended = ? WHERE ended >= ? AND seq = (SELECT max(seq) FROM outages)", ended, began-shortRun.Milliseconds())
	if err != nil {
		return err
	}
	if k, err := r.RowsAffected(); err != nil || k > 0 {
		return err
	}
	if _, err := tx.exec(ctx, "INSERT INTO outages (began, ended) VALUES (?, ?)", began, ended); err != nil {
		return err
	}
	_, err = tx.exec(ctx, "DELETE FROM outages WHERE seq <= (SELECT seq FROM outages ORDER BY seq DESC LIMIT 1 OFFSET ?)", outagesKept)
	return err
}

// Outages returns the outages, oldest first: of very many, the newest.
func (s *Store) Outages(ctx context.Context) ([]Outage, error) {
	rows, err := s.query(ctx, "SELECT began, ended FROM outages ORDER BY seq")
	return collect(rows, err, func(row scanner) (Outage, error) {
		var began, ended int64
		err := row.Scan(&began, &ended)
		return Outage{fromMS(began), fromMS(ended)}, err
	})
}
