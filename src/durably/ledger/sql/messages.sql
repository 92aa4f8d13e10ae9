-- Messages: appended, never rewritten.

-- name: insert_message
INSERT INTO durably_messages (run_id, seq, kind, attempt, body, inserted_at)
VALUES (:run_id, :seq, :kind, :attempt, :body, durably_now())
ON CONFLICT (run_id, seq) DO NOTHING
RETURNING seq;

-- name: insert_two_messages
INSERT INTO durably_messages (run_id, seq, kind, attempt, body, inserted_at)
VALUES (:run_id, :seq_a, :kind_a, :attempt, :body_a/*postgres: ::JSON*/, durably_now()),
       (:run_id, :seq_b, :kind_b, :attempt, :body_b/*postgres: ::JSON*/, durably_now())
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

-- name: record_step (postgres)
-- In one round trip what touch_run, insert_message, record_outcome, insert_event and set_fingerprint
-- do one by one (see there). All of it hangs on `held`, the fence; what follows the messages also
-- on that they were not there already, for then the whole step is: it may come twice, the second
-- time after others, and counts what was spent once. An outcome's event comes with it.
WITH held AS (
    UPDATE durably_runs
    SET usage = CASE WHEN before.it THEN usage ELSE COALESCE(:usage, usage) END,
        tokens = CASE WHEN before.it THEN tokens
                      ELSE COALESCE(CAST(:tokens AS BIGINT), tokens) END,
        cost_nanousd = CASE WHEN before.it THEN cost_nanousd
                            ELSE COALESCE(CAST(:cost_nanousd AS BIGINT), cost_nanousd) END,
        own_nanousd = CASE WHEN before.it THEN own_nanousd
                           ELSE COALESCE(CAST(:own_nanousd AS BIGINT), own_nanousd) END,
        model = CASE WHEN before.it THEN model ELSE COALESCE(CAST(:model AS TEXT), model) END
    FROM (SELECT EXISTS (SELECT 1 FROM durably_messages
                         WHERE run_id = :run_id AND seq = CAST(:seq_a AS INTEGER)) AS it) before
    WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
    RETURNING id, attempt),
appended AS (
    INSERT INTO durably_messages (run_id, seq, kind, attempt, body, inserted_at)
    SELECT held.id, m.seq, m.kind, held.attempt, m.body, durably_now()
    FROM held,
         (VALUES (CAST(:seq_a AS INTEGER), CAST(:kind_a AS TEXT), CAST(:body_a AS JSON)),
                 (CAST(:seq_b AS INTEGER), CAST(:kind_b AS TEXT), CAST(:body_b AS JSON)))
         AS m (seq, kind, body)
    WHERE m.seq IS NOT NULL
    ON CONFLICT (run_id, seq) DO NOTHING
    RETURNING seq),
going_on AS (
    SELECT id, attempt FROM held
    WHERE (SELECT count(*) FROM appended) = CAST(:messages AS INTEGER)),
outcomes AS (
    INSERT INTO durably_effects (run_id, response, call, step, tool_name, tool_call_id, args,
                                 policy, on_doubt, state, asked, attempt, idempotency_key, result,
                                 error, started_at, finished_at)
    SELECT r.id, o.response, o.call, o.step, o.tool_name, o.tool_call_id, o.args, o.policy,
           o.on_doubt, o.state, o.asked, r.attempt, o.idempotency_key, CAST(o.result AS JSON),
           o.error, durably_after(o.began_seconds),
           CASE WHEN o.state IN ('done', 'failed', 'denied')
                THEN durably_after(o.ended_seconds) END
    FROM going_on r,
         json_to_recordset(CAST(:outcomes AS JSON)) AS o (
             response INTEGER, call INTEGER, step TEXT, tool_name TEXT, tool_call_id TEXT,
             args TEXT, policy TEXT, on_doubt TEXT, state TEXT, asked BOOLEAN,
             idempotency_key TEXT, result TEXT, error TEXT, began_seconds DOUBLE PRECISION,
             ended_seconds DOUBLE PRECISION)
    ON CONFLICT (run_id, response, call, step) DO UPDATE
    SET state = excluded.state, asked = excluded.asked, result = excluded.result,
        error = COALESCE(excluded.error, durably_effects.error), finished_at = excluded.finished_at
    WHERE durably_effects.state NOT IN ('done', 'failed', 'denied')
      AND (durably_effects.state <> excluded.state OR durably_effects.asked <> excluded.asked
           OR COALESCE(durably_effects.error, '')
              <> COALESCE(excluded.error, durably_effects.error, ''))
    RETURNING response, call, step),
events AS (
    INSERT INTO durably_events (run_id, kind, attempt, data, at)
    SELECT r.id, e.kind, r.attempt, e.data, durably_now()
    FROM going_on r,
         ROWS FROM (json_to_recordset(CAST(:events AS JSON)) AS (
             kind TEXT, data JSON, response INTEGER, call INTEGER, step TEXT)) WITH ORDINALITY
         AS e (kind, data, response, call, step, place)
    WHERE e.response IS NULL
       OR (e.response, e.call, e.step) IN (SELECT response, call, step FROM outcomes)
    ORDER BY e.place),
known AS (
    UPDATE durably_attempts a SET fingerprint = CAST(:fingerprint AS TEXT)
    FROM going_on r
    WHERE CAST(:fingerprint AS TEXT) IS NOT NULL AND a.run_id = r.id AND a.attempt = r.attempt
      AND a.fingerprint IS DISTINCT FROM CAST(:fingerprint AS TEXT))
-- Alone it is its own transaction: one of which a part is there already fails, and nothing is written.
SELECT (SELECT count(*) FROM held) AS held,
       CASE WHEN CAST(:alone AS BOOLEAN) AND appended NOT IN (0, CAST(:messages AS INTEGER))
            THEN 1 / (appended - appended) ELSE appended END AS appended
FROM (SELECT count(*) AS appended FROM appended) a;
