ALTER TABLE nodes ADD COLUMN health TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN unavailable TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN duplicate TEXT;
ALTER TABLE nodes ADD COLUMN removed_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN event_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN event_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE nodes SET event_count = (SELECT count(*) FROM events WHERE node_id = nodes.id),
	event_bytes = (SELECT COALESCE(SUM(length(message) + length(details)), 0) FROM events WHERE node_id = nodes.id);
ALTER TABLE commands ADD COLUMN actor TEXT NOT NULL DEFAULT '';
CREATE INDEX events_command ON events(node_id, command_id, seq);
