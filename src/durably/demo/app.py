"""The demo's application, as a worker loads it: ``durably worker --app durably.demo.app:app``.

Owns how the agent is registered; folder and model come from the environment.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from durably import Durably, RunInfo
from durably.demo.agent import make_agent
from durably.demo.scripted import scripted_model
from durably.demo.site import Site
from durably.demo.tools import Desk
from durably.errors import ConfigError

FOLDER, URL = "DURABLY_DEMO_FOLDER", "DURABLY_DEMO_URL"
MODEL, PARENT = "DURABLY_DEMO_MODEL", "DURABLY_DEMO_PARENT"
"""Environment variables: the data, its database (none: in the folder), the model (none: scripted),
the process that started this."""

QUEUE = "support"


def make_app(site: Site, model: str | None) -> Durably:
    """The application: one agent, on the shop's own database."""

    def desk(run: RunInfo) -> Desk:
        return Desk(site, run.args["ticket"], run.args["email"], run.attempt)

    app = Durably(site.database.url)
    app.register(make_agent(model or scripted_model()), deps=desk, queue=QUEUE)
    return app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise ConfigError(f"{FOLDER} is not set: the demo's folder, as `durably demo` printed it.")
    if parent := os.environ.get(PARENT):
        threading.Thread(target=_follow, args=(int(parent),), daemon=True).start()
    return make_app(Site(Path(folder), os.environ.get(URL)), os.environ.get(MODEL))


def _follow(parent: int) -> None:
    """Leave when the demo is gone: it may have been killed without a chance to stop its workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
