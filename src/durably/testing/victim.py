"""The process that `kill_at` starts: ``python -m durably.testing.victim``, orders on its stdin.

Owns its whole life: import the application, drain its ledger, be killed at the boundary.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from durably import boundaries


@dataclass(frozen=True, slots=True)
class Source:
    """Where an application, or a function that makes one, is to be imported from.

    Attributes:
        file: where its module is, if that cannot be found by its name.
    """

    module: str
    name: str
    file: str | None


@dataclass(frozen=True, slots=True)
class Orders:
    """What the process is told.

    Attributes:
        path: where modules are looked for.
        report: the file for how often each boundary was reached, if it is not killed.
        clock_start, clock_ahead: what the test's clock stood at first, and was moved by, seconds;
            None, if the ledger goes by its own.
    """

    source: Source
    url: str
    boundary: str
    nth: int
    tool: str | None
    queues: dict[str, int] | None
    path: list[str]
    report: str
    clock_start: str | None
    clock_ahead: float | None


def main() -> None:
    """Do as the orders say."""
    told = json.loads(sys.stdin.read())
    told["source"] = Source(**told["source"])
    orders = Orders(**told)
    sys.path[:] = [*orders.path, os.getcwd()]  # noqa: PTH109
    reached: Counter[str] = Counter()
    app = _app(orders)
    boundaries.check(orders.boundary)
    boundaries.observe(_killing(orders, reached))
    asyncio.run(_drain(app, orders))
    Path(orders.report).write_text(json.dumps(reached), "utf-8")
    # A thread that a tool blocks need not keep it.
    sys.stdout.flush()
    os._exit(0)


async def _drain(app: Any, orders: Orders) -> None:
    from durably.testing.ledgers import redirect

    if orders.clock_ahead is None:
        async with app:
            await app.drain(orders.queues)
        return
    from durably.testing.clock import Clock

    start = orders.clock_start and datetime.fromisoformat(orders.clock_start)
    clock = Clock(start or None)
    clock.advance(timedelta(seconds=orders.clock_ahead))
    with redirect(app, orders.url, clock=clock):
        await app.drain(orders.queues)


def _killing(orders: Orders, reached: Counter[str]) -> boundaries.Observer:
    lock = threading.Lock()
    left = orders.nth

    def observer(name: str) -> None:
        nonlocal left
        with lock:
            reached[name] += 1
            if name != orders.boundary or orders.tool not in (None, boundaries.tool()):
                return
            left -= 1
            if left:
                return
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
            while True:  # Until the signal is delivered.
                time.sleep(1)

    return observer


def _app(orders: Orders) -> Any:
    from durably.app import Durably

    source = orders.source
    found = getattr(_module(source), source.name)
    if not isinstance(found, Durably):
        parameters = inspect.signature(found).parameters
        found = found(orders.url) if parameters else found()
    if not isinstance(found, Durably):
        raise SystemExit(f"{source.module}:{source.name} is, or returns, no Durably: {found!r}")
    if found.settings.url != orders.url:
        raise SystemExit(
            f"{source.module}:{source.name} works on {found.ledger.url}, the test on another "
            "ledger: let it take the URL, or leave it to DURABLY_URL."
        )
    return found


def _module(source: Source) -> Any:
    try:
        module = importlib.import_module(source.module)
    except ModuleNotFoundError as error:
        if source.file is None or error.name != source.module.partition(".")[0]:
            raise
    else:
        found = getattr(module, "__file__", None)
        if source.file is None or (found and Path(found).resolve() == Path(source.file).resolve()):
            return module
    # As pytest imports it: a file that is found under no name.
    assert source.file is not None, "only without one the module has to be found"
    spec = importlib.util.spec_from_file_location(source.module, source.file)
    assert spec is not None and spec.loader is not None, f"{source.file} is a module"
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.module] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
