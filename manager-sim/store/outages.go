package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Outage is a time in which no manager ran.
type Outage struct{ Began, Ended time.Time }

// outagesKept is how many outages are kept.
const outagesKept = 1000

// RecordAlive records that the manager runs at now. If the record before is older than
// gap, the time between the two is an outage, which is stored; the first record is none. A
// clock that was set back measured the outages that now end in the future wrong: they are
// deleted.
func (s *Store) RecordAlive(ctx context.Context, now time.Time, gap time.Duration) error {
	return s.tx(ctx, func(tx conn) error {
		var last int64
		err := tx.row(ctx, "SELECT at FROM alive").Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			last, err = ms(now), nil
		}
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, "INSERT INTO alive (one, at) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET at = excluded.at", ms(now)); err != nil {
			return err
		}
		if ms(now) < last {
			_, err := tx.exec(ctx, "DELETE FROM outages WHERE ended > ?", ms(now))
			return err
		}
		if ms(now)-last <= gap.Milliseconds() {
			return nil
		}
		if _, err := tx.exec(ctx, "INSERT INTO outages (began, ended) VALUES (?, ?)", last, ms(now)); err != nil {
			return err
		}
		_, err = tx.exec(ctx, "DELETE FROM outages WHERE seq <= (SELECT seq FROM outages ORDER BY seq DESC LIMIT 1 OFFSET ?)", outagesKept)
		return err
	})
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
