"""How much there is of what, in Prometheus' format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from durably.records import DueRecord, QueueRecord, Statistics, WorkerRecord
from durably.web.rest.speaking import READING, problems
from durably.web.routing import RestRoute
from durably.web.site import SiteOf, Viewer

WINDOW_SECONDS = 60.0

routes = APIRouter(tags=["health"], route_class=RestRoute)


@routes.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=PlainTextResponse,
    responses=problems(*READING),
)
async def metrics(request: Request, site: SiteOf, _: Viewer) -> Response:
    """How much there is of what now; for viewers, so Prometheus needs a token: `authorization`."""
    app = site.app
    registry = CollectorRegistry()
    registry.register(
        _Now(
            await app.statistics(WINDOW_SECONDS, buckets=1),
            await app.queues(open_only=True),
            await app.workers(),
            await app.due(),
        )
    )
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type})


class _Now(Collector):
    """What was found, as gauges: made for each answer, so nothing is kept."""

    def __init__(
        self,
        statistics: Statistics,
        queues: list[QueueRecord],
        workers: list[WorkerRecord],
        due: list[DueRecord],
    ) -> None:
        self._statistics = statistics
        self._queues = queues
        self._workers = workers
        self._due = due

    def collect(self) -> Iterable[GaugeMetricFamily]:
        found, alive = self._statistics, [worker for worker in self._workers if worker.alive]
        yield _gauge(
            "durably_open_runs",
            "Runs that are not over.",
            ("queue", "state"),
            {(q.queue, state): n for q in self._queues for state, n in q.counts.items()},
        )
        yield _gauge(
            "durably_runs",
            f"Runs, by state; final ones are counted up to {found.counted_to}.",
            ("state",),
            {(state,): n for state, n in found.states.items()},
        )
        yield _gauge(
            "durably_due_runs",
            "Runs that could be claimed now.",
            ("queue",),
            {(due.queue,): due.runs for due in self._due},
        )
        yield _gauge(
            "durably_oldest_due_seconds",
            "For how long the oldest of them has been due.",
            ("queue",),
            {(due.queue,): _age(due.since, found.until) for due in self._due},
        )
        yield _gauge(
            "durably_queue_paused",
            "1 while no attempt of a queue begins.",
            ("queue",),
            {(queue.queue,): int(queue.paused) for queue in self._queues},
        )
        yield _gauge("durably_workers", "Live workers.", (), {(): len(alive)})
        yield _gauge(
            "durably_queue_workers",
            "Live workers that serve a queue.",
            ("queue",),
            Counter((queue,) for worker in alive for queue in worker.queues),
        )
        yield _gauge(
            "durably_executing_runs",
            "Runs that live workers execute.",
            (),
            {(): sum(worker.executing for worker in alive)},
        )
        yield _gauge(
            "durably_waiting_for_people",
            "What waits for a person.",
            ("kind",),
            {(kind,): n for kind, n in found.waiting.items()},
        )
        yield _gauge(
            "durably_calls_in_doubt",
            "Calls of runs that are not over, of which nobody knows whether they happened.",
            (),
            {(): found.in_doubt},
        )


def _gauge(
    name: str,
    documentation: str,
    labels: tuple[str, ...],
    values: dict[tuple[str, ...], int] | dict[tuple[str, ...], float] | Counter[tuple[str, ...]],
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _age(since: datetime, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds())
