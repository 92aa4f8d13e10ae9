"""How long `import durably` and `durably --help` take, beside a Python that does nothing: wall."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

TIMES = 9
IMPORT = "import durably, sys; sys.exit('pydantic_ai' in sys.modules)"


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def starting() -> dict[str, float]:
    """Medians, taken in turns; also whether the import brings pydantic_ai along.

    Raises:
        CalledProcessError: one of them fails; importing pydantic_ai counts.
    """
    command = str(Path(sys.executable).with_name("durably"))
    nothing, imported, helped = zip(
        *(
            (
                seconds(sys.executable, "-c", "pass"),
                seconds(sys.executable, "-c", IMPORT),
                seconds(command, "--help"),
            )
            for _ in range(TIMES)
        ),
        strict=True,
    )
    return {
        "python": statistics.median(nothing),
        "import": statistics.median(imported) - statistics.median(nothing),
        "help": statistics.median(helped),
    }
