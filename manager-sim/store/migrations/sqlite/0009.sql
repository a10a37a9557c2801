-- health_at is 0 until the running version has sent a health beat. A node that reported its
-- health to an earlier manager has done so; at what time is not known.
UPDATE nodes SET health_at = registered_at WHERE health_at = 0 AND health != '';
