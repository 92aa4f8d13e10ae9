"""Oban's tables as its Elixir original makes them: its migrations 1 to 14, written out."""

from __future__ import annotations

NEWEST = 14


def tables(version: int = NEWEST, schema: str = "public") -> str:
    """A script that makes them as they are after this migration, from 11 on."""
    assert 11 <= version <= NEWEST
    suspended = "'suspended'," if version >= 14 else ""
    priority = "non_negative_priority CHECK (priority >= 0)"
    if version < 12:
        priority = "priority_range CHECK (priority BETWEEN 0 AND 3)"
    script = f"""
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TYPE {schema}.oban_job_state AS ENUM ('available', {suspended} 'scheduled', 'executing',
    'retryable', 'completed', 'discarded', 'cancelled');
CREATE TABLE {schema}.oban_jobs (
    id bigserial PRIMARY KEY,
    state {schema}.oban_job_state NOT NULL DEFAULT 'available',
    queue text NOT NULL DEFAULT 'default',
    worker text NOT NULL,
    args jsonb NOT NULL DEFAULT '{{}}',
    errors jsonb[] NOT NULL DEFAULT ARRAY[]::jsonb[],
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 20,
    inserted_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
    scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
    attempted_at timestamp,
    completed_at timestamp,
    attempted_by text[],
    discarded_at timestamp,
    priority integer NOT NULL DEFAULT 0,
    tags text[] DEFAULT ARRAY[]::text[],
    meta jsonb DEFAULT '{{}}',
    cancelled_at timestamp,
    CONSTRAINT {priority},
    CONSTRAINT positive_max_attempts CHECK (max_attempts > 0),
    CONSTRAINT attempt_range CHECK (attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT queue_length CHECK (char_length(queue) > 0 AND char_length(queue) < 128),
    CONSTRAINT worker_length CHECK (char_length(worker) > 0 AND char_length(worker) < 128)
);
CREATE INDEX oban_jobs_state_queue_priority_scheduled_at_id_index
    ON {schema}.oban_jobs (state, queue, priority, scheduled_at, id);
CREATE INDEX oban_jobs_args_index ON {schema}.oban_jobs USING gin (args);
CREATE INDEX oban_jobs_meta_index ON {schema}.oban_jobs USING gin (meta);
CREATE UNLOGGED TABLE {schema}.oban_peers (
    name text NOT NULL PRIMARY KEY,
    node text NOT NULL,
    started_at timestamp NOT NULL,
    expires_at timestamp NOT NULL
);
COMMENT ON TABLE {schema}.oban_jobs IS '{version}';
"""
    if version >= 13:
        script += f"""
CREATE INDEX oban_jobs_state_cancelled_at_index ON {schema}.oban_jobs (state, cancelled_at);
CREATE INDEX oban_jobs_state_discarded_at_index ON {schema}.oban_jobs (state, discarded_at);
"""
    return script
