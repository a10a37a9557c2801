package agent

import (
	"io"
	"log/slog"
)

// logTo returns a log of JSON lines.
func logTo(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}
