CREATE TABLE groups (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL) STRICT;
ALTER TABLE nodes ADD COLUMN group_id TEXT NOT NULL DEFAULT '';
CREATE INDEX nodes_group ON nodes(group_id);
CREATE TABLE rollouts (
	id TEXT PRIMARY KEY, group_id TEXT NOT NULL REFERENCES groups(id), revision INTEGER NOT NULL,
	active INTEGER NOT NULL, state TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX rollouts_active ON rollouts(group_id) WHERE active;
