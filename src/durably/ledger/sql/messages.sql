-- Messages: appended, never rewritten.

-- name: insert_message
INSERT INTO durably_messages (run_id, seq, kind, attempt, body, inserted_at)
VALUES (:run_id, :seq, :kind, :attempt, :body, durably_now());

-- name: list_messages
SELECT * FROM durably_messages WHERE run_id = :run_id AND seq > :after ORDER BY seq;
