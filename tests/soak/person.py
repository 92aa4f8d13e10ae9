"""A person, who decides what the inbox asks: by looking at the record of the outside, as they must.

Owns the decisions; that each counts once is the ledger's.
"""

from __future__ import annotations

import asyncio
import zlib
from contextlib import suppress

from crash.world import receipt
from durably import Durably, EffectNotFound, InboxItem, LedgerUnavailable, TransitionRefused
from soak.client import send
from soak.workload import Soaked

LOOK_SECONDS = 0.2
DENIED_OF_TEN = 2
ANSWER = "Twice."


async def decide_for_ever(site: Soaked, app: Durably) -> None:
    """Look into the inbox again and again; also send the signals of customers who died."""
    while True:
        with suppress(LedgerUnavailable):
            for item in await app.inbox():
                with suppress(TransitionRefused, EffectNotFound):  # Somebody was faster.
                    await _decide(site, app, item)
            if site.world.gate_is_open():
                await _send_what_is_missing(app)
        await asyncio.sleep(LOOK_SECONDS)


async def _decide(site: Soaked, app: Durably, item: InboxItem) -> None:
    run, effect = await app.get(item.run_key), item.effect
    if effect is None:
        await run.raise_budget(requests=100, by="ann")
        return
    match effect.ask:
        case "approval" if is_denied(effect.idempotency_key):
            await run.deny(effect.call_id, reason="Not this one.", by="ann")
        case "approval":
            await run.approve(effect.call_id, by="ann")
        case "question":
            await run.answer(effect.call_id, ANSWER, by="ann")
        case _:
            # The service is asked, and does not let the old call happen any more.
            happened = site.outside.find(item.run_key, effect.idempotency_key, effect.attempt)
            site.world.record("asked", key=effect.idempotency_key, happened=happened)
            if happened:
                answer = receipt(effect.tool_name, effect.idempotency_key)
                await run.resolve(effect.call_id, done=answer, by="ann")
            else:
                await run.resolve(effect.call_id, again=True, by="ann")


def is_denied(idempotency_key: str) -> bool:
    """What the person thinks of a call: always the same."""
    return zlib.crc32(idempotency_key.encode()) % 10 < DENIED_OF_TEN


async def _send_what_is_missing(app: Durably) -> None:
    for run in await app.runs(state="suspended", limit=500):
        if (run.record.meta or {}).get("scenario") == "listen":
            for payload in ("first", "second"):
                await send(app, run.key, payload)
