"""What happens in the demo: enqueue, start workers, kill them at the worst moments, watch, decide.

Owns the sequence; processes are the crew's, words the story's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from durably import Durably, EffectState, Run, RunState
from durably.demo import approvals
from durably.demo.agent import BETWEEN_STEPS
from durably.demo.approvals import Approver, Request
from durably.demo.crew import Crew, Member, WorkerDied
from durably.demo.keyboard import NobodyThere
from durably.demo.outside import Book, PaymentProvider
from durably.demo.screen import Screen
from durably.demo.site import Site
from durably.demo.story import Story
from durably.demo.tickets import Answer, Ticket
from durably.demo.tools import APPROVED, receipt
from durably.demo.traps import Traps
from durably.errors import DurablyError
from durably.records import Effect

TRAPS = ("charge", BETWEEN_STEPS, "refund", APPROVED)

BEFORE_PAYING = (BETWEEN_STEPS, APPROVED)
"""Those that a ticket comes by once more if its worker dies there."""

LOOK_SECONDS = 0.02
"""How often the demo looks whether a worker sits in a trap."""


class Performance:
    """One run of the demo."""

    def __init__(
        self,
        app: Durably,
        site: Site,
        crew: Crew,
        screen: Screen,
        approver: Approver,
        tickets: Sequence[Ticket],
    ) -> None:
        self._app = app
        self._site = site
        self._crew = crew
        self._screen = screen
        self._approver = approver
        self._tickets = {ticket.id: ticket for ticket in tickets}
        self._workers: dict[str, str] = {}
        self._oban = site.postgres_url is not None
        self._story = Story(screen, self._workers, oban=self._oban)
        self._traps = Traps(site.traps)
        self._provider = PaymentProvider(site.payments)
        self._ruled: set[str] = set()
        self._one_question = asyncio.Lock()
        self._deadline = asyncio.timeout(None)

    async def run(self, workers: int, deadline_seconds: float, *, targeted: bool) -> bool:
        """Deal with every ticket; False if the deadline came first.

        Args:
            targeted: it is known which ticket will charge and which refund.

        Raises:
            WorkerDied: a worker ended by itself.
            NobodyThere: nobody answers any more.
        """
        self._arm(targeted)
        runs = [await self._enqueue(ticket) for ticket in self._tickets.values()]
        jobs = ", each with a job in Oban" if self._oban else ""
        self._screen.say(f"{len(runs)} tickets enqueued{jobs}; {workers} workers start")
        for _ in range(workers):
            self._crew.start()
        try:
            async with asyncio.timeout(deadline_seconds) as self._deadline:
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
        expected = [(t.id, t.expects.outcome) for t in self._tickets.values()]
        charged = [ticket for ticket, outcome in expected if outcome == "charged"]
        refunded = [ticket for ticket, outcome in expected if outcome == "refunded"]
        self._traps.arm(APPROVED)  # Whichever is approved first.
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
        except* (WorkerDied, NobodyThere, DurablyError) as broken:
            raise broken.exceptions[0] from None

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
                for effect in await run.effects():
                    await self._decide(run, effect)
        if run.state is RunState.COMPLETED:
            self._story.answered(run.key, run.output())

    async def _learn_names(self) -> None:
        for worker in await self._app.workers():
            if member := self._crew.find(worker.pid):
                self._workers[worker.id] = member.name

    async def _decide(self, run: Run[Answer], effect: Effect) -> None:
        if effect.ask == "approval" and effect.idempotency_key not in self._ruled:
            self._ruled.add(effect.idempotency_key)
            await self._approve(run, Request.of(self._tickets[run.key], effect))
        elif effect.asked and effect.state is EffectState.IN_DOUBT:
            await self._resolve(run, effect)

    async def _approve(self, run: Run[Answer], request: Request) -> None:
        """Have somebody decide about a refund, and put it on the shop's record."""
        self._story.asked(request)
        async with self._one_question:
            with self._thinking():
                ruling = await self._approver.decide(run, request)
        ruling = ruling or await approvals.decided_elsewhere(run, request)
        if ruling is not None:
            approvals.record(self._site, request, ruling)

    @contextmanager
    def _thinking(self) -> Generator[None]:
        """The deadline is for machines: a person may think for as long as they like."""
        loop, ends = asyncio.get_running_loop(), self._deadline.when()
        if not self._approver.thinks or ends is None:
            yield
            return
        left = ends - loop.time()
        self._deadline.reschedule(None)
        try:
            yield
        finally:
            self._deadline.reschedule(loop.time() + left)

    async def _resolve(self, run: Run[Answer], effect: Effect) -> None:
        """The operator: looks at what the payment provider has, and says what happened."""
        found = self._provider.find(effect.idempotency_key)
        payment_id = found["id"] if found else None
        self._story.decided(run.key, effect.call_id, effect.tool_name, payment_id)
        if found:
            await run.resolve(effect.call_id, done=receipt(found), note="seen at the provider")
        else:
            await run.resolve(effect.call_id, again=True, note="the provider has nothing")

    async def _kill_whoever_is_trapped(self) -> None:
        while True:
            self._crew.check()
            for trap in self._traps.sprung():
                if member := self._crew.find(trap.pid):
                    await self._kill(member)
            await asyncio.sleep(LOOK_SECONDS)

    async def _kill(self, member: Member) -> None:
        pid = member.process.pid
        ids = {worker.id for worker in await self._app.workers() if worker.pid == pid}
        self._crew.kill(member)
        trap = self._traps.sat_in(pid, BEFORE_PAYING)
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
