"""What happens in the demo: enqueue, start workers, kill them at the worst moments, watch, decide.

Owns the sequence; processes are the crew's, words the story's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from durably import Durably, EffectState, Run, RunState
from durably.demo.agent import BETWEEN_STEPS
from durably.demo.crew import Crew, WorkerDied
from durably.demo.outside import Book, PaymentProvider
from durably.demo.screen import Screen
from durably.demo.site import Site
from durably.demo.story import Story
from durably.demo.tickets import Answer, Ticket
from durably.demo.tools import receipt
from durably.demo.traps import Sprung, Traps

TRAPS = ("charge", BETWEEN_STEPS, "refund")

LOOK_SECONDS = 0.02
"""How often the demo looks whether a worker sits in a trap."""


class Performance:
    """One run of the demo."""

    def __init__(
        self, app: Durably, site: Site, crew: Crew, screen: Screen, tickets: Sequence[Ticket]
    ) -> None:
        self._app = app
        self._site = site
        self._crew = crew
        self._screen = screen
        self._tickets = tickets
        self._workers: dict[str, str] = {}
        self._oban = site.postgres_url is not None
        self._story = Story(screen, self._workers, oban=self._oban)
        self._traps = Traps(site.traps)
        self._provider = PaymentProvider(site.payments)
        self._done: set[Sprung] = set()

    async def run(self, workers: int, deadline_seconds: float, *, targeted: bool) -> bool:
        """Deal with every ticket; False if the deadline came first.

        Args:
            targeted: it is known which ticket will charge and which refund.

        Raises:
            WorkerDied: a worker ended by itself.
        """
        self._arm(targeted)
        runs = [await self._enqueue(ticket) for ticket in self._tickets]
        jobs = ", each with a job in Oban" if self._oban else ""
        self._screen.say(f"{len(runs)} tickets enqueued{jobs}; {workers} workers start")
        for _ in range(workers):
            self._crew.start()
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._until_all_are_dealt_with(runs)
                await self._until_all_have_started()
        except TimeoutError:
            return False
        codes = await self._crew.stop()
        self._screen.say(f"workers stopped with SIGTERM; exit codes {codes}", "dim")
        return not any(codes)

    def _arm(self, targeted: bool) -> None:
        if not targeted:
            for name in TRAPS:
                self._traps.arm(name)
            return
        # On tickets apart from each other, so that each kill is a story of its own.
        charged = [t.id for t in self._tickets if t.expects.outcome == "charged"]
        refunded = [t.id for t in self._tickets if t.expects.outcome == "refunded"]
        self._traps.arm("charge", charged[0])
        self._traps.arm(BETWEEN_STEPS, charged[-2])
        self._traps.arm("refund", refunded[-1])

    async def _enqueue(self, ticket: Ticket) -> Run[Answer]:
        return await self._app.enqueue(
            "support",
            ticket.prompt,
            key=ticket.id,
            args={"ticket": ticket.id, "email": ticket.email},
        )

    async def _until_all_are_dealt_with(self, runs: Sequence[Run[Answer]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(self._kill_whoever_is_trapped())
                await asyncio.wait([group.create_task(self._watch(run)) for run in runs])
                killing.cancel()
        except* WorkerDied as died:
            raise died.exceptions[0] from None

    async def _until_all_have_started(self) -> None:
        """A worker that is still importing when SIGTERM comes could not leave as it should."""
        while not self._crew.living() <= {worker.pid for worker in await self._app.workers()}:
            self._crew.check()
            await asyncio.sleep(0.05)

    async def _watch(self, run: Run[Answer]) -> None:
        async for event in run.watch():
            if event.kind == "claimed" and event.data["worker"] not in self._workers:
                await self._learn_names()
            self._story.tell(event)
            if event.kind == "suspended":
                await self._decide(run)
        if run.state is RunState.COMPLETED:
            self._story.answered(run.key, run.output())

    async def _learn_names(self) -> None:
        for worker in await self._app.workers():
            if member := self._crew.find(worker.pid):
                self._workers[worker.id] = member.name

    async def _decide(self, run: Run[Answer]) -> None:
        """The operator: looks at what the payment provider has, and says what happened."""
        for effect in await run.effects():
            if effect.state is not EffectState.IN_DOUBT:
                continue
            found = self._provider.find(effect.idempotency_key)
            self._story.decided(run.key, effect.tool_name, found["id"] if found else None)
            if found:
                await run.resolve(effect.call_id, done=receipt(found), note="seen at the provider")
            else:
                await run.resolve(effect.call_id, again=True, note="the provider has nothing")

    async def _kill_whoever_is_trapped(self) -> None:
        while True:
            self._crew.check()
            for trap in self._traps.sprung():
                if trap not in self._done:
                    self._done.add(trap)
                    await self._kill(trap)
            await asyncio.sleep(LOOK_SECONDS)

    async def _kill(self, trap: Sprung) -> None:
        member = self._crew.find(trap.pid)
        if member is None:
            return  # Two traps, one worker: it is dead already.
        ids = {worker.id for worker in await self._app.workers() if worker.pid == trap.pid}
        self._crew.kill(member)
        executing = await self._app.runs(state="executing", limit=len(self._tickets))
        held = [run for run in executing if run.record.worker_id in ids]
        in_doubt = {
            (run.key, effect.call_id): self._provider.find(effect.idempotency_key) is not None
            for run in held
            for effect in await run.effects()
            if effect.state is EffectState.STARTED
        }
        kill = {"worker": member.name, "trap": trap.name, "in_doubt": list(in_doubt)}
        Book(self._site.kills).append(lambda _: kill)
        self._story.killed(member.name, trap, [run.key for run in held], in_doubt)
        self._screen.say(f"{self._crew.start().name} started in its place", "dim")
