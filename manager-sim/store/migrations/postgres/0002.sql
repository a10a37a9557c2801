-- A token can be named, listed, revoked, and ends by itself. 0: it never ends.
ALTER TABLE api_tokens ADD COLUMN id TEXT NOT NULL DEFAULT '';
ALTER TABLE api_tokens ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE api_tokens ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE api_tokens ADD COLUMN last_used_at BIGINT NOT NULL DEFAULT 0;
UPDATE api_tokens SET id = substr(hash, 1, 16);
CREATE UNIQUE INDEX api_tokens_id ON api_tokens(id);
-- Addresses from which a user signed in.
CREATE TABLE sign_ins (
	"user" TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE, source TEXT NOT NULL, time BIGINT NOT NULL, PRIMARY KEY ("user", source)
);
