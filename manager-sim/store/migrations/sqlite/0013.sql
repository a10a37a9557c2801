-- The author's actions that a node announced when it authenticated last.
ALTER TABLE nodes ADD COLUMN actions TEXT NOT NULL DEFAULT '[]';
-- Commands to such actions. params is NULL without parameters, and once the command is over.
CREATE TABLE actions (
	seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, node_id TEXT NOT NULL REFERENCES nodes(id),
	action TEXT NOT NULL, params TEXT, params_bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, life_ms INTEGER NOT NULL,
	actor TEXT NOT NULL, acting TEXT NOT NULL, state TEXT NOT NULL, decided_by TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
	sent_at INTEGER NOT NULL DEFAULT 0, acked_at INTEGER NOT NULL DEFAULT 0, success INTEGER NOT NULL DEFAULT 0,
	error_code TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', result TEXT
) STRICT;
CREATE INDEX actions_node ON actions(node_id, seq);
