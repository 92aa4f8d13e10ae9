-- Where the runs of this ledger were moved to (`durably transfer`); one row at most. While it is
-- there, triggers of that command refuse every write.
CREATE TABLE durably_moved (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    transfer_id TEXT NOT NULL,
    url         TEXT NOT NULL,
    ledger_id   TEXT NOT NULL,
    stage       TEXT NOT NULL CHECK (stage IN ('copying', 'opening', 'moved')),
    moved_at    TEXT NOT NULL
) STRICT;
