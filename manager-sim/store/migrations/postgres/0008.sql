-- Ready writes this row to find out whether the database can be written.
CREATE TABLE store_check (one INTEGER PRIMARY KEY CHECK (one = 1), at BIGINT NOT NULL);
