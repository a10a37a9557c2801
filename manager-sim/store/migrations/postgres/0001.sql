CREATE TABLE tokens (hash TEXT PRIMARY KEY);
CREATE TABLE nodes (
	id TEXT PRIMARY KEY, device_type TEXT NOT NULL, secret_hash TEXT NOT NULL,
	version TEXT NOT NULL, capabilities TEXT NOT NULL, upgrade TEXT,
	registered_at BIGINT NOT NULL, last_seen BIGINT NOT NULL,
	group_id TEXT NOT NULL DEFAULT ''
);
CREATE TABLE commands (
	seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id TEXT NOT NULL UNIQUE, node_id TEXT NOT NULL REFERENCES nodes(id),
	version TEXT NOT NULL, channel TEXT NOT NULL, action TEXT NOT NULL, created_at BIGINT NOT NULL,
	sent_at BIGINT NOT NULL DEFAULT 0, acked_at BIGINT NOT NULL DEFAULT 0, success BOOLEAN NOT NULL DEFAULT FALSE,
	error_code TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', data TEXT
);
CREATE INDEX commands_node ON commands(node_id, seq);
CREATE TABLE events (
	seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id TEXT NOT NULL, node_id TEXT NOT NULL REFERENCES nodes(id),
	time BIGINT NOT NULL, received_at BIGINT NOT NULL, severity TEXT NOT NULL, category TEXT NOT NULL,
	message TEXT NOT NULL, error_code TEXT NOT NULL, command_id TEXT NOT NULL, details TEXT NOT NULL
);
CREATE UNIQUE INDEX events_once ON events(node_id, event_id) WHERE event_id != '';
CREATE INDEX events_node ON events(node_id, seq);
CREATE TABLE audit (
	seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, time BIGINT NOT NULL, actor TEXT NOT NULL,
	action TEXT NOT NULL, target TEXT NOT NULL, details TEXT NOT NULL
);
CREATE TABLE groups (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at BIGINT NOT NULL);
CREATE INDEX nodes_group ON nodes(group_id);
CREATE TABLE rollouts (
	id TEXT PRIMARY KEY, group_id TEXT NOT NULL REFERENCES groups(id), revision BIGINT NOT NULL,
	active BOOLEAN NOT NULL, state TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX rollouts_active ON rollouts(group_id) WHERE active;
CREATE TABLE users (
	name TEXT PRIMARY KEY, hash TEXT NOT NULL, role TEXT NOT NULL, groups TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE TABLE sessions (
	hash TEXT PRIMARY KEY, "user" TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE, expires_at BIGINT NOT NULL
);
CREATE TABLE api_tokens (
	hash TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, groups TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE TABLE connections (
	seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, node_id TEXT NOT NULL REFERENCES nodes(id), time BIGINT NOT NULL,
	state TEXT NOT NULL, version TEXT NOT NULL
);
CREATE INDEX connections_node ON connections(node_id, seq);
CREATE TABLE once (
	key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, time BIGINT NOT NULL, status INT NOT NULL DEFAULT 0, body TEXT NOT NULL DEFAULT ''
);
