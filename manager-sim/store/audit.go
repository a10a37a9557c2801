package store

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// AuditFilter narrows AuditLog; empty fields match all.
type AuditFilter struct {
	Actor, Action, Target string
	Before                int64 // only entries with a lower Seq; 0: all
	Limit                 int
}

// AddAudit adds an audit entry that belongs to no other change.
func (s *Store) AddAudit(ctx context.Context, a api.AuditEntry) error {
	return s.tx(ctx, func(tx conn) error { return addAudit(ctx, tx, a) })
}

func addAudit(ctx context.Context, tx conn, a api.AuditEntry) error {
	_, err := tx.exec(ctx, "INSERT INTO audit (time, actor, action, target, details) VALUES (?, ?, ?, ?, ?)",
		ms(a.Time), a.Actor, a.Action, a.Target, string(a.Details))
	return err
}

// AuditLog returns entries, newest first, and how many match in all, whatever Before is.
func (s *Store) AuditLog(ctx context.Context, f AuditFilter) ([]api.AuditEntry, int, error) {
	var w where
	w.equal("actor", f.Actor)
	w.equal("action", f.Action)
	w.equal("target", f.Target)
	total, err := s.count(ctx, "audit", w)
	if err != nil {
		return nil, 0, err
	}
	if f.Before > 0 {
		w.add("seq < ?", f.Before)
	}
	rows, err := s.query(ctx, "SELECT seq, time, actor, action, target, details FROM audit"+w.String()+" ORDER BY seq DESC LIMIT ?", append(w.args, f.Limit)...)
	entries, err := list(ctx, rows, err, func(row scanner) (api.AuditEntry, error) {
		var a api.AuditEntry
		var at int64
		var details string
		err := row.Scan(&a.Seq, &at, &a.Actor, &a.Action, &a.Target, &details)
		a.Time, a.Details = fromMS(at), json.RawMessage(details)
		return a, cmp.Or(err, valid(a.Details))
	})
	return entries, total, err
}

// NewAuditEntry returns an entry of the audit trail. details are plain values.
func NewAuditEntry(now time.Time, actor, action, target string, details map[string]any) api.AuditEntry {
	b, err := json.Marshal(details)
	if err != nil {
		b = []byte("{}")
	}
	return api.AuditEntry{Time: now.UTC(), Actor: actor, Action: action, Target: target, Details: b}
}
