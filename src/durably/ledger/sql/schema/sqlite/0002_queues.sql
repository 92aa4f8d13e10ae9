-- What was decided for a queue at run time, for every worker; a queue without a row is as usual.
CREATE TABLE durably_queues (
    queue        TEXT PRIMARY KEY,
    paused       INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    runs_at_once INTEGER CHECK (runs_at_once > 0),
    changed_at   TEXT NOT NULL
) STRICT;
