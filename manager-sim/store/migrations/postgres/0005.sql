ALTER TABLE nodes ADD COLUMN trial TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN hold TEXT;
-- Of the last health beat. 0: of an earlier version, or none.
ALTER TABLE nodes ADD COLUMN health_at BIGINT NOT NULL DEFAULT 0;
-- When the manager last ran, in one row; and the times in which it did not.
CREATE TABLE alive (one INT PRIMARY KEY CHECK (one = 1), at BIGINT NOT NULL);
CREATE TABLE outages (seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, began BIGINT NOT NULL, ended BIGINT NOT NULL);
