"""The support agent: its instructions, and the meter on its model. Any model can drive it.

A plain pydantic-ai agent; what repeating its tools would mean is said in tools.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.capabilities.abstract import WrapModelRequestHandler
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, ModelRequestContext

from durably.demo.outside import ModelBill
from durably.demo.tickets import Answer
from durably.demo.tools import Desk, tools

BETWEEN_STEPS = "between-steps"
"""The trap right before a request to the model, when money may have moved already."""

INSTRUCTIONS = """\
You are the support desk of a shop for kitchen things. Deal with one ticket.

- Look up the order first. Without a number, or if there is no such order, ask by mail.
- Things added to an order, gift wrapping and express shipping: charge what the price list says.
- An unpaid order whose customer asks to try the card again: charge what is still owed.
- Broken or wrong things: refund what these cost, not the whole order. A lost parcel: refund it all.
- Charged twice: refund one payment, but only if the order's entries really show two.
- A change of mind is refunded up to 30 days after delivery, and not later.
- Before you refund, check the entries: what was paid back already is not paid back again.
- A person decides about a large refund. Denied, or only a part of it: say so, do not ask again.
- After a charge or a refund, book it under the payment id that you got.
- Send exactly one mail to the customer, then give your answer. All amounts are in cents.
"""


@dataclass
class Metered(AbstractCapability[Desk]):
    """Puts every request to the model on the bill: it counts what the provider would count."""

    async def wrap_model_request(
        self,
        ctx: RunContext[Desk],
        *,
        request_context: ModelRequestContext,
        handler: WrapModelRequestHandler,
    ) -> ModelResponse:
        desk = ctx.deps
        step = sum(isinstance(message, ModelResponse) for message in ctx.messages)
        if step >= 2:
            await asyncio.to_thread(desk.traps.step_in, BETWEEN_STEPS, desk.ticket)
        bill = ModelBill(desk.site.bill)
        await asyncio.to_thread(bill.request, run=desk.ticket, step=step, attempt=desk.attempt)
        return await handler(request_context)


def make_agent(model: Model | str) -> Agent[Desk, Answer]:
    """The agent, the same whatever model drives it."""
    return Agent(
        model,
        name="support",
        deps_type=Desk,
        output_type=Answer,
        instructions=INSTRUCTIONS,
        toolsets=[tools],
        capabilities=[Metered()],
    )
