package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Beat is what is known of clocks when the manager recorded that it runs.
type Beat struct {
	At     time.Time
	Uptime time.Duration // how long managers have run in all
	BootID string        // of the machine; "": not known
	Boot   time.Duration // since the machine was booted, also while it was suspended
}

// RecordBeat is RecordAlive with what is known of clocks. A negative uptime leaves the stored
// one as it is.
func (s *Store) RecordBeat(ctx context.Context, now time.Time, gap time.Duration, b Beat) error {
	return s.tx(ctx, func(tx conn) error {
		var last, uptime int64
		err := tx.row(ctx, "SELECT at, uptime FROM alive").Scan(&last, &uptime)
		if errors.Is(err, sql.ErrNoRows) {
			last, err = ms(now), nil
		}
		if err != nil {
			return err
		}
		if b.Uptime >= 0 {
			uptime = b.Uptime.Milliseconds()
		}
		if _, err := tx.exec(ctx, `INSERT INTO alive (one, at, uptime, boot_id, boot_ms) VALUES (1, ?, ?, ?, ?) ON CONFLICT (one)
			DO UPDATE SET at = excluded.at, uptime = excluded.uptime, boot_id = excluded.boot_id, boot_ms = excluded.boot_ms`,
			ms(now), uptime, b.BootID, b.Boot.Milliseconds()); err != nil {
			return err
		}
		switch away := ms(now) - last; {
		case away < 0:
			if _, err := tx.exec(ctx, "DELETE FROM outages WHERE began >= ?", ms(now)); err != nil {
				return err
			}
			_, err := tx.exec(ctx, "UPDATE outages SET ended = ? WHERE ended > ?", ms(now), ms(now))
			return err
		case away > gap.Milliseconds():
			return addOutage(ctx, tx, last, ms(now))
		}
		return nil
	})
}

// LastBeat returns the last beat; its time is zero if there was none.
func (s *Store) LastBeat(ctx context.Context) (Beat, error) {
	var at, uptime, boot int64
	var b Beat
	err := s.row(ctx, "SELECT at, uptime, boot_id, boot_ms FROM alive").Scan(&at, &uptime, &b.BootID, &boot)
	if errors.Is(err, sql.ErrNoRows) {
		return Beat{}, nil
	}
	b.At, b.Uptime, b.Boot = fromMS(at), time.Duration(uptime)*time.Millisecond, time.Duration(boot)*time.Millisecond
	return b, err
}
