-- The SHA-256 of the manifest of the version that a node runs, in lower-case hex; '': the node
-- reports none.
ALTER TABLE nodes ADD COLUMN manifest_sha256 TEXT NOT NULL DEFAULT '';
