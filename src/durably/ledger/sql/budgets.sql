-- Budgets that runs share. Whoever writes about runs and their budgets locks the runs' rows first, then
-- the budgets', in the order of their names: nobody waits in a circle.

-- name: set_budget
-- What was spent stays spent.
INSERT INTO durably_budgets (scope, name, limits, changed_at)
VALUES (:scope, :name, :limits, durably_now())
ON CONFLICT (scope, name) DO UPDATE SET limits = excluded.limits, changed_at = excluded.changed_at
RETURNING *;

-- name: remove_budget
DELETE FROM durably_budgets WHERE scope = :scope AND name = :name RETURNING scope;

-- name: get_budget
SELECT * FROM durably_budgets WHERE scope = :scope AND name = :name;

-- name: list_budgets (sqlite)
SELECT * FROM durably_budgets ORDER BY scope, name;

-- name: list_budgets (postgres)
SELECT * FROM durably_budgets ORDER BY scope COLLATE "C", name COLLATE "C";

-- name: budgets_of (sqlite)
-- Those that a run of this thread with these tags shares.
SELECT * FROM durably_budgets
WHERE (scope = 'thread' AND name = :thread)
   OR (scope = 'tag' AND name IN (SELECT value FROM json_each(:tags)))
ORDER BY scope, name;

-- name: budgets_of (postgres)
SELECT * FROM durably_budgets
WHERE (scope = 'thread' AND name = CAST(:thread AS TEXT))
   OR (scope = 'tag'
       AND name = ANY(ARRAY(SELECT jsonb_array_elements_text(CAST(:tags AS JSONB)))))
ORDER BY scope COLLATE "C", name COLLATE "C";

-- name: add_spending
UPDATE durably_budgets
SET spent_requests = spent_requests + :requests, spent_tokens = spent_tokens + :tokens,
    spent_tool_calls = spent_tool_calls + :tool_calls, spent_nanousd = spent_nanousd + :nanousd
WHERE scope = :scope AND name = :name
RETURNING scope;

-- name: set_run_budget
UPDATE durably_runs SET budget = :budget WHERE id = :run_id RETURNING *;

-- name: list_budget_waits
-- A page of the runs that wait for some budget.
SELECT * FROM durably_runs
WHERE waiting_kind = 'budget' AND id > :after ORDER BY id LIMIT :limit;

-- name: list_waits_for_budget (sqlite)
SELECT id FROM durably_runs
WHERE waiting_kind = 'budget' AND json_extract(CASE WHEN json_valid(waiting_on) THEN waiting_on END, '$.scope') = :scope
  AND json_extract(CASE WHEN json_valid(waiting_on) THEN waiting_on END, '$.name') = :name
ORDER BY id LIMIT :limit;

-- name: list_waits_for_budget (postgres)
SELECT id FROM durably_runs
WHERE waiting_kind = 'budget' AND waiting_on ->> 'scope' = :scope AND waiting_on ->> 'name' = :name
ORDER BY id LIMIT :limit;

-- name: wake_funded_run
UPDATE durably_runs
SET state = 'available', waiting_kind = NULL, waiting_on = NULL
WHERE id = :run_id AND state = 'suspended' AND waiting_kind = 'budget'
RETURNING *;

-- name: list_budget_inbox (sqlite)
SELECT r.id AS run_id, r.key AS run_key, r.agent, r.queue, r.tags, r.parent_id, r.waiting_kind,
       r.waiting_on, a.ended_at AS since
FROM durably_runs r JOIN durably_attempts a ON a.run_id = r.id AND a.attempt = r.attempt
WHERE r.waiting_kind = 'budget' AND (a.ended_at, r.id) > (:since, :run_id)
  AND (CAST(:agent AS TEXT) IS NULL OR r.agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR r.queue = :queue)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(r.tags) THEN r.tags END) WHERE value = :tag))
ORDER BY a.ended_at, r.id LIMIT :limit;

-- name: list_budget_inbox (postgres)
SELECT r.id AS run_id, r.key AS run_key, r.agent, r.queue, r.tags, r.parent_id, r.waiting_kind,
       r.waiting_on, a.ended_at AS since
FROM durably_runs r JOIN durably_attempts a ON a.run_id = r.id AND a.attempt = r.attempt
WHERE r.waiting_kind = 'budget' AND (a.ended_at, r.id) > (:since, :run_id)
  AND (CAST(:agent AS TEXT) IS NULL OR r.agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR r.queue = :queue)
  AND (CAST(:tag AS TEXT) IS NULL OR r.tags @> jsonb_build_array(CAST(:tag AS TEXT)))
ORDER BY a.ended_at, r.id LIMIT :limit;
