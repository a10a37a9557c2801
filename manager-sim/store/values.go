package store

import (
	"database/sql"
	"encoding/json"
	"time"
)

// ms returns a time as it is stored: in Unix milliseconds; 0 is the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// maxMS is the last day that JSON can represent. Earlier versions stored later ones.
var maxMS = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli()

func fromMS(v int64) time.Time {
	if v == 0 || v > maxMS || v < -maxMS/8 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}

func null(b json.RawMessage) sql.NullString {
	return sql.NullString{String: string(b), Valid: b != nil}
}

func raw(s sql.NullString) json.RawMessage {
	if !s.Valid {
		return nil
	}
	return json.RawMessage(s.String)
}
