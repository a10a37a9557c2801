-- Ready writes this row to find out whether the database can be written.
CREATE TABLE store_check (one INTEGER PRIMARY KEY CHECK (one = 1), at BIGINT NOT NULL);
-- uptime is how long managers have run in all, in milliseconds; boot_id and boot_ms are of the
-- machine at the last beat.
ALTER TABLE alive ADD COLUMN uptime BIGINT NOT NULL DEFAULT 0;
ALTER TABLE alive ADD COLUMN boot_id TEXT NOT NULL DEFAULT '';
ALTER TABLE alive ADD COLUMN boot_ms BIGINT NOT NULL DEFAULT 0;
-- limit_ms is the time limit of a command, 0: the default. progress_at is when the progress
-- that the node reports last changed.
ALTER TABLE commands ADD COLUMN limit_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN progress_at BIGINT NOT NULL DEFAULT 0;
