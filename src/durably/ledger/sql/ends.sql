-- Ends that somebody else must learn of. Told by whoever ended the run, one run at a time; what died
-- before it could is found here.

-- name: list_untold_ends
SELECT * FROM durably_runs
WHERE tells_end AND state IN ('completed', 'discarded', 'cancelled') ORDER BY id LIMIT :limit;

-- name: told_end
UPDATE durably_runs SET tells_end = FALSE
WHERE id = :run_id AND state IN ('completed', 'discarded', 'cancelled')
  AND finished_at = :finished_at
RETURNING id;
