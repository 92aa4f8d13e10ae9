-- Statistics: what there is now, and what ended over a window. On SQLite no row of a run is looked at.

-- name: time_now
SELECT durably_now() AS now;

-- name: count_ended
SELECT count(*) AS runs FROM durably_runs WHERE finished_at > :since AND finished_at <= :until;

-- name: ended_between (sqlite)
-- The single durations go along: their medians are exact, and those of parts can be put together. Of
-- very many, those of every so many runs, by a number in which their ids have no order any more.
SELECT CASE :by WHEN 'agent' THEN agent WHEN 'queue' THEN queue WHEN 'model' THEN model END AS name,
       count(*) FILTER (WHERE state = 'completed') AS completed,
       count(*) FILTER (WHERE state = 'discarded') AS discarded,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       sum(failures) AS failures, sum(crashes) AS crashes, sum(tokens) AS tokens,
       count(waited_ms) AS begun, sum(own_nanousd) AS cost_nanousd,
       json_group_array(waited_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS waited,
       json_group_array(executed_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS executed
FROM durably_runs
WHERE finished_at > :since AND finished_at <= :until
  AND (:agent IS NULL OR agent = :agent)
  AND (:queue IS NULL OR queue = :queue)
  AND (:model IS NULL OR model = :model)
GROUP BY 1;

-- name: ended_between (postgres)
SELECT CASE CAST(:by AS TEXT) WHEN 'agent' THEN agent WHEN 'queue' THEN queue WHEN 'model' THEN model
       END AS name,
       count(*) FILTER (WHERE state = 'completed') AS completed,
       count(*) FILTER (WHERE state = 'discarded') AS discarded,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       sum(failures) AS failures, sum(crashes) AS crashes, count(waited_ms) AS begun,
       CAST(sum(tokens) AS BIGINT) AS tokens,
       CAST(sum(own_nanousd) AS BIGINT) AS cost_nanousd,
       json_agg(waited_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS waited,
       json_agg(executed_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS executed
FROM durably_runs
WHERE finished_at > :since AND finished_at <= :until
  AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR queue = :queue)
  AND (CAST(:model AS TEXT) IS NULL OR model = :model)
GROUP BY 1;

-- name: ended_together (sqlite)
-- The same, nothing told apart: it need not be sorted, which would be most of the work.
SELECT NULL AS name, count(*) FILTER (WHERE state = 'completed') AS completed,
       count(*) FILTER (WHERE state = 'discarded') AS discarded,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       sum(failures) AS failures, sum(crashes) AS crashes, sum(tokens) AS tokens,
       count(waited_ms) AS begun, sum(own_nanousd) AS cost_nanousd,
       json_group_array(waited_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS waited,
       json_group_array(executed_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS executed
FROM durably_runs
WHERE finished_at > :since AND finished_at <= :until
  AND (:agent IS NULL OR agent = :agent)
  AND (:queue IS NULL OR queue = :queue)
  AND (:model IS NULL OR model = :model)
HAVING count(*) > 0;

-- name: ended_together (postgres)
SELECT NULL AS name, count(*) FILTER (WHERE state = 'completed') AS completed,
       count(*) FILTER (WHERE state = 'discarded') AS discarded,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       sum(failures) AS failures, sum(crashes) AS crashes, count(waited_ms) AS begun,
       CAST(sum(tokens) AS BIGINT) AS tokens,
       CAST(sum(own_nanousd) AS BIGINT) AS cost_nanousd,
       json_agg(waited_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS waited,
       json_agg(executed_ms)
           FILTER (WHERE waited_ms IS NOT NULL
                   AND (((id & 1048575) * 2654435761 & 4294967295) >> 16) % :every = 0) AS executed
FROM durably_runs
WHERE finished_at > :since AND finished_at <= :until
  AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR queue = :queue)
  AND (CAST(:model AS TEXT) IS NULL OR model = :model)
HAVING count(*) > 0;

-- name: count_state
SELECT count(*) AS runs
FROM (SELECT id FROM durably_runs WHERE state = :state ORDER BY id DESC LIMIT :limit) found;

-- name: count_asked
SELECT kind, count(*) AS things
FROM (SELECT COALESCE(e.ask, 'doubt') AS kind
      FROM durably_effects e JOIN durably_runs r ON r.id = e.run_id
      WHERE e.asked AND e.state IN ('in_doubt', 'awaiting') AND r.state = 'suspended'
      LIMIT :limit) found
GROUP BY kind;

-- name: count_budget_waits
SELECT count(*) AS runs
FROM (SELECT id FROM durably_runs WHERE waiting_kind = 'budget' ORDER BY id LIMIT :limit) found;

-- name: count_doubts
SELECT count(*) AS calls
FROM (SELECT e.run_id FROM durably_effects e JOIN durably_runs r ON r.id = e.run_id
      WHERE e.state = 'in_doubt' AND r.finished_at IS NULL LIMIT :limit) found;
