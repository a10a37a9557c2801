CREATE TABLE tokens (hash TEXT PRIMARY KEY) STRICT;
CREATE TABLE nodes (
	id TEXT PRIMARY KEY, device_type TEXT NOT NULL, secret_hash TEXT NOT NULL,
	version TEXT NOT NULL, capabilities TEXT NOT NULL, upgrade TEXT,
	registered_at INTEGER NOT NULL, last_seen INTEGER NOT NULL
) STRICT;
CREATE TABLE commands (
	seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, node_id TEXT NOT NULL REFERENCES nodes(id),
	version TEXT NOT NULL, channel TEXT NOT NULL, action TEXT NOT NULL, created_at INTEGER NOT NULL,
	sent_at INTEGER NOT NULL DEFAULT 0, acked_at INTEGER NOT NULL DEFAULT 0, success INTEGER NOT NULL DEFAULT 0,
	error_code TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', data TEXT
) STRICT;
CREATE INDEX commands_node ON commands(node_id, seq);
CREATE TABLE events (
	seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, node_id TEXT NOT NULL REFERENCES nodes(id),
	time INTEGER NOT NULL, received_at INTEGER NOT NULL, severity TEXT NOT NULL, category TEXT NOT NULL,
	message TEXT NOT NULL, error_code TEXT NOT NULL, command_id TEXT NOT NULL, details TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_once ON events(node_id, event_id) WHERE event_id != '';
CREATE INDEX events_node ON events(node_id, seq);
CREATE TABLE audit (
	seq INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, actor TEXT NOT NULL,
	action TEXT NOT NULL, target TEXT NOT NULL, details TEXT NOT NULL
) STRICT;
