-- Whether a command may be sent, and who withdrew it, why and when. acting is the identity with
-- which it was requested; '' is not known, as of an earlier version.
ALTER TABLE commands ADD COLUMN state TEXT NOT NULL DEFAULT 'pending';
ALTER TABLE commands ADD COLUMN rollout_id TEXT NOT NULL DEFAULT '';
ALTER TABLE commands ADD COLUMN acting TEXT NOT NULL DEFAULT '';
ALTER TABLE commands ADD COLUMN withdrawn_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE commands ADD COLUMN withdraw_sent_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE commands ADD COLUMN withdraw_acked_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE commands ADD COLUMN decided_by TEXT NOT NULL DEFAULT '';
ALTER TABLE commands ADD COLUMN reason TEXT NOT NULL DEFAULT '';
UPDATE commands SET state = CASE WHEN error_code = 'replaced' AND sent_at = 0 THEN 'superseded'
	WHEN acked_at != 0 THEN 'ended' WHEN sent_at = 0 THEN 'pending' ELSE 'sent' END;
-- A node has one open command: the newest.
UPDATE commands SET state = 'withdrawn', withdrawn_at = created_at, reason = 'replaced'
	WHERE state IN ('pending', 'sent') AND EXISTS (SELECT 1 FROM commands AS newer WHERE newer.node_id = commands.node_id AND newer.seq > commands.seq);
CREATE UNIQUE INDEX commands_open ON commands(node_id) WHERE state IN ('pending', 'held', 'sent');
CREATE INDEX commands_rollout ON commands(rollout_id) WHERE rollout_id != '';
-- What a node announced when it authenticated last.
ALTER TABLE nodes ADD COLUMN features TEXT NOT NULL DEFAULT '[]';
