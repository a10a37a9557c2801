ALTER TABLE nodes ADD COLUMN trial TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN hold TEXT;
-- Of the last health beat. 0: of an earlier version, or none.
ALTER TABLE nodes ADD COLUMN health_at INTEGER NOT NULL DEFAULT 0;
-- When the manager last ran, in one row; and the times in which it did not.
CREATE TABLE alive (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;
CREATE TABLE outages (seq INTEGER PRIMARY KEY AUTOINCREMENT, began INTEGER NOT NULL, ended INTEGER NOT NULL) STRICT;
