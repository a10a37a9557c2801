-- The author's actions that a node announced when it authenticated last.
ALTER TABLE nodes ADD COLUMN actions TEXT NOT NULL DEFAULT '[]';
-- Commands to such actions. params is NULL without parameters, and once the command is over.
CREATE TABLE actions (
	seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id TEXT NOT NULL UNIQUE, node_id TEXT NOT NULL REFERENCES nodes(id),
	action TEXT NOT NULL, params TEXT, params_bytes BIGINT NOT NULL, created_at BIGINT NOT NULL, life_ms BIGINT NOT NULL,
	actor TEXT NOT NULL, acting TEXT NOT NULL, state TEXT NOT NULL, decided_by TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
	sent_at BIGINT NOT NULL DEFAULT 0, acked_at BIGINT NOT NULL DEFAULT 0, success BOOLEAN NOT NULL DEFAULT FALSE,
	error_code TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', result TEXT
);
CREATE INDEX actions_node ON actions(node_id, seq);
