-- Whether a run's messages are shown while they are made; NULL: as its agent says.
ALTER TABLE durably_runs ADD COLUMN stream INTEGER CHECK (stream IN (0, 1));

-- Pieces of messages in the making, which go when their message comes.
CREATE INDEX durably_events_deltas ON durably_events (run_id, id) WHERE kind = 'delta';
