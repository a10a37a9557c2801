package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// RecordDisconnect records that a node's session ended.
func (s *Store) RecordDisconnect(ctx context.Context, id string, at time.Time) error {
	return s.tx(ctx, func(tx conn) error {
		return addConnection(ctx, tx, id, api.Connection{Time: at, State: api.Disconnected, Version: ""})
	})
}

const (
	// connectionsKept is how many connections of one node are kept.
	connectionsKept = 1000
	// Of the older connections, those around the longest absences are kept for some time,
	// so that they are known of a node that reconnects all the time.
	absencesKept    = 10
	absencesKeptFor = 30 * 24 * time.Hour
)

func addConnection(ctx context.Context, tx conn, nodeID string, c api.Connection) error {
	if _, err := tx.exec(ctx, "INSERT INTO connections (node_id, time, state, version) VALUES (?, ?, ?, ?)", nodeID, ms(c.Time), c.State, c.Version); err != nil {
		return err
	}
	var last int64 // of the older connections
	err := tx.row(ctx, "SELECT seq FROM connections WHERE node_id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?", nodeID, connectionsKept).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = tx.exec(ctx, `WITH changes AS (
			SELECT seq, time, state, LAG(seq) OVER w AS left_seq, LAG(time) OVER w AS left_time, LAG(state) OVER w AS left_state
			FROM connections WHERE node_id = ? WINDOW w AS (ORDER BY seq)
		), absences AS (
			SELECT seq, left_seq FROM changes WHERE state = ? AND left_state = ? AND time >= ? ORDER BY time - left_time DESC LIMIT ?
		)
		DELETE FROM connections WHERE node_id = ? AND seq <= ? AND seq NOT IN (SELECT seq FROM absences) AND seq NOT IN (SELECT left_seq FROM absences)`,
		nodeID, api.Authenticated, api.Disconnected, ms(c.Time.Add(-absencesKeptFor)), absencesKept, nodeID, last)
	return err
}

// Connections returns when a node connected and disconnected, newest first. The
// oldest of very many are deleted, except those around the longest absences of late.
func (s *Store) Connections(ctx context.Context, nodeID string) ([]api.Connection, error) {
	rows, err := s.query(ctx, "SELECT node_id, time, state, version FROM connections WHERE node_id = ? ORDER BY seq DESC", nodeID)
	return list(ctx, rows, err, func(row scanner) (api.Connection, error) {
		var c api.Connection
		var at int64
		err := row.Scan(&nodeID, &at, &c.State, &c.Version)
		c.Time = fromMS(at)
		return c, err
	})
}
