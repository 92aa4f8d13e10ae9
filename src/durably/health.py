"""What is wrong with an installation: its ledger, its workers, its queues, its agents; is it ready.

Owns what counts as a problem; the database's own checks are the ledger's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from durably.agents.registry import Registry, undeclared_tools
from durably.errors import LedgerError, SchemaError
from durably.ledger import attempts, notices, queues, reads
from durably.ledger.database import Database
from durably.records import (
    DueRecord,
    Finding,
    FindingStatus,
    Readiness,
    ReadyCheck,
    WorkerRecord,
)


async def examine(ledger: Database, registry: Registry) -> list[Finding]:
    """Look at everything; changes nothing, and opens only a ledger that is as it should be."""
    findings = await ledger.examine()
    if all(finding.status is not FindingStatus.PROBLEM for finding in findings):
        await ledger.open()
        workers = await ledger.read(reads.list_workers)
        alive = [worker for worker in workers if worker.alive]
        findings.append(_workers(workers, alive))
        findings.append(_orphans(await ledger.read(attempts.count_orphans), alive))
        findings += _untold(await ledger.read(notices.count_given_up))
        settings = await ledger.read(queues.list_settings)
        paused = {queue for queue, setting in settings.items() if setting.paused}
        due = await ledger.read(reads.list_due)
        findings += [_due(record, alive, record.queue in paused) for record in due]
        findings += [_paused(queue) for queue in sorted(paused - {record.queue for record in due})]
    return findings + [_tools(name, registry) for name in registry.all()]


async def readiness(ledger: Database, timeout: float) -> Readiness:
    """Whether runs are being executed; opens only a ledger that is there."""
    checks: list[ReadyCheck] = []
    try:
        async with asyncio.timeout(timeout):
            if not await ledger.exists():
                raise SchemaError(f"There is no ledger at {ledger.url}; run `durably migrate`.")
            await ledger.open()
            workers = await ledger.read(reads.list_workers)
    except SchemaError as error:
        checks += [ReadyCheck("database", True, "it answers")]
        checks += [ReadyCheck("schema", False, str(error))]
    except TimeoutError:
        checks += [ReadyCheck("database", False, f"{ledger.url} did not answer in {timeout:g} s.")]
    except LedgerError as error:
        checks += [ReadyCheck("database", False, str(error))]
    else:
        checks += [ReadyCheck("database", True, "it answers")]
        checks += [ReadyCheck("schema", True, f"version {ledger.versions[1]}")]
        alive = sum(worker.alive for worker in workers)
        text = f"{_count(alive, 'worker')} alive" if alive else "No worker is alive: start one."
        checks += [ReadyCheck("workers", alive > 0, text)]
    return Readiness(tuple(checks))


def _workers(workers: Sequence[WorkerRecord], alive: Sequence[WorkerRecord]) -> Finding:
    dead = len(workers) - len(alive)
    text = f"{_count(len(alive), 'worker')} alive"
    if alive:
        text += f", {_count(sum(w.executing for w in alive), 'run')} executing"
    if dead:
        text += f"; {dead} died without a word in the last day"
    return Finding("workers", FindingStatus.OK, text)


def _orphans(orphans: int, alive: Sequence[WorkerRecord]) -> Finding:
    if not orphans:
        return Finding("stuck runs", FindingStatus.OK, "none")
    text = f"{_count(orphans, 'run')} executing under a dead worker"
    if alive:
        return Finding("stuck runs", FindingStatus.WARNING, f"{text}; about to be rescued")
    return Finding("stuck runs", FindingStatus.PROBLEM, f"{text}; start a worker")


def _untold(given_up: int) -> list[Finding]:
    if not given_up:
        return []
    text = f"nobody could be told of {given_up} that wait in `durably inbox`; events say why"
    return [Finding("hooks", FindingStatus.WARNING, text)]


def _due(due: DueRecord, alive: Sequence[WorkerRecord], paused: bool) -> Finding:
    subject = f"queue {due.queue}"
    since = f"{_count(due.runs, 'run')} due, the oldest since {due.since:%Y-%m-%d %H:%M:%S} UTC"
    if paused:
        return Finding(subject, FindingStatus.OK, f"paused; {since}")
    if any(due.queue in worker.queues for worker in alive):
        return Finding(subject, FindingStatus.OK, since)
    return Finding(subject, FindingStatus.PROBLEM, f"{since}; no live worker serves this queue")


def _paused(queue: str) -> Finding:
    return Finding(f"queue {queue}", FindingStatus.OK, "paused; nothing is due")


def _tools(name: str, registry: Registry) -> Finding:
    registration = registry.get(name)
    undeclared = undeclared_tools(registration.agent)
    if not undeclared:
        return Finding(f"agent {name}", FindingStatus.OK, "every tool says what repeating it does")
    return Finding(
        f"agent {name}",
        FindingStatus.WARNING,
        f"{', '.join(undeclared)}: no effect declared, so the default holds, "
        f"{registration.default_effect}; declare it: @agent.tool(metadata=effects.READ), "
        "effects.IDEMPOTENT, effects.TRANSACTIONAL or effects.once(...)",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
