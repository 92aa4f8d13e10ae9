-- Search: stretches of runs, newest first, each found by an index; then those of them that match.

-- name: ids_before
SELECT id FROM durably_runs WHERE id < :before AND id > :after ORDER BY id DESC LIMIT :limit;

-- name: ids_of_state_before
SELECT id FROM durably_runs
WHERE state = :state AND id < :before AND id > :after ORDER BY id DESC LIMIT :limit;

-- name: ids_of_thread_before
SELECT id FROM durably_runs
WHERE thread = :thread AND id < :before AND id > :after ORDER BY id DESC LIMIT :limit;

-- name: ends_of_ids
SELECT (SELECT min(id) FROM durably_runs) AS lowest, (SELECT max(id) FROM durably_runs) AS highest;

-- name: run_from_id
-- The first from an id on: to find by halves where a time begins.
SELECT id, inserted_at FROM durably_runs WHERE id >= :run_id ORDER BY id LIMIT 1;

-- name: search_runs (sqlite)
-- No pattern: what is looked for is found as it is, whatever the case of its ASCII letters.
SELECT r.* FROM json_each(:ids) wanted CROSS JOIN durably_runs r ON r.id = wanted.value
WHERE (:states IS NULL OR r.state IN (SELECT value FROM json_each(:states)))
  AND (:thread IS NULL OR r.thread = :thread)
  AND (:agent IS NULL OR r.agent = :agent)
  AND (:queue IS NULL OR r.queue = :queue)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(r.tags) THEN r.tags END) WHERE value = :tag))
  AND (:since IS NULL OR r.inserted_at >= :since)
  AND (:until IS NULL OR r.inserted_at < :until)
  AND (:key IS NULL OR instr(lower(r.key), lower(:key)) > 0)
  AND (:other_than IS NULL OR r.key <> :other_than)
  AND (:text IS NULL OR instr(lower(r.error), lower(:text)) > 0
       OR (SELECT instr(lower(i.prompt), lower(:escaped)) FROM durably_inputs i
           WHERE i.run_id = r.id) > 0)
ORDER BY r.id DESC LIMIT :limit;

-- name: search_runs (postgres)
SELECT r.* FROM durably_runs r
WHERE r.id IN (SELECT CAST(json_array_elements_text(CAST(:ids AS JSON)) AS BIGINT))
  AND (CAST(:states AS TEXT) IS NULL
       OR r.state = ANY(ARRAY(SELECT json_array_elements_text(CAST(:states AS JSON)))))
  AND (CAST(:thread AS TEXT) IS NULL OR r.thread = :thread)
  AND (CAST(:agent AS TEXT) IS NULL OR r.agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR r.queue = :queue)
  AND (CAST(:tag AS TEXT) IS NULL OR r.tags @> jsonb_build_array(CAST(:tag AS TEXT)))
  AND (CAST(:since AS TIMESTAMPTZ) IS NULL OR r.inserted_at >= :since)
  AND (CAST(:until AS TIMESTAMPTZ) IS NULL OR r.inserted_at < :until)
  AND (CAST(:key AS TEXT) IS NULL
       OR position(lower(CAST(:key AS TEXT) COLLATE "C") IN lower(r.key COLLATE "C")) > 0)
  AND (CAST(:other_than AS TEXT) IS NULL OR r.key <> :other_than)
  AND (CAST(:text AS TEXT) IS NULL
       OR position(lower(CAST(:text AS TEXT) COLLATE "C") IN lower(r.error COLLATE "C")) > 0
       OR (SELECT position(lower(CAST(:escaped AS TEXT) COLLATE "C")
                           IN lower(CAST(i.prompt AS TEXT) COLLATE "C"))
           FROM durably_inputs i WHERE i.run_id = r.id) > 0)
ORDER BY r.id DESC LIMIT :limit;
