"""Every fault that the matrix has, by the name that its table has for it.

Owns the names; a test that proves another one is told so (`record`), and a table without one of
them is stale (`test_table`).
"""

from __future__ import annotations

from matrix.disks import FULL, SAID_TO_BE_FULL
from matrix.faulty_tools import FATAL, OUT_OF_MEMORY, RAISED, RETURNED

OF_PROCESSES = (
    "process killed",
    "machine frozen past the lease",
    "two workers holding one run",
    "deploy with other tools, prompt and model",
)
OF_DATABASES = (
    *("database killed and restarted", "database hangs", "another server takes over"),
    *("connection cut", "no connection free", "database locked by another process"),
    *(FULL, SAID_TO_BE_FULL),
)
OF_CLOCKS = (
    "clock set forward by an hour",
    "clock set back by an hour",
    "workers' clocks an hour apart",
)
OF_MODELS = (
    *(
        "model answers 401",
        "model answers 429",
        "model answers 500",
        "model answers what is no JSON",
    ),
    *("model answers with a page", "model answers with an error and 200", "model answers nonsense"),
    *("model's connection is reset", "model's connection is refused", "model's answer is cut off"),
    *("model's stream breaks in the middle", "model gives arguments that do not validate"),
    *("model gives arguments that are no JSON", "model calls a tool that is not there"),
    *("model answers nothing at all", "model hangs"),
)
OF_TOOLS = (
    *("tool slower than the lease", "tool blocks the event loop"),
    *("tool hangs until its time is over", "tool hangs while its run is cancelled"),
    "tool hangs while its worker is told to leave",
    *(fault.name for fault in (*RAISED, *RETURNED, *OUT_OF_MEMORY, *FATAL)),
)

ALL = frozenset({*OF_PROCESSES, *OF_DATABASES, *OF_CLOCKS, *OF_MODELS, *OF_TOOLS})
