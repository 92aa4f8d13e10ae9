-- Messages: appended, never rewritten.

-- name: insert_message
INSERT INTO durably_messages (run_id, seq, kind, attempt, body, inserted_at)
VALUES (:run_id, :seq, :kind, :attempt, :body, durably_now())
ON CONFLICT (run_id, seq) DO NOTHING
RETURNING seq;

-- name: get_message
SELECT * FROM durably_messages WHERE run_id = :run_id AND seq = :seq;

-- name: list_messages
SELECT * FROM durably_messages WHERE run_id = :run_id AND seq > :after ORDER BY seq;

-- name: list_last_messages
-- Newest first.
SELECT * FROM durably_messages WHERE run_id = :run_id AND seq < :before
ORDER BY seq DESC LIMIT :limit;
