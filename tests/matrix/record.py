"""Notes what was proved, for the table in docs/reliability.md; leaves the table to its script.

A line of JSON for each, in the file that ``DURABLY_PROVED`` names; nothing where it names none.
"""

import json
import os
from pathlib import Path

from matrix.faults import ALL


def proved(fault: str, *, moment: str, policy: str, database: str, times: int = 1) -> None:
    """Note that a fault was survived, once everything about it has been checked.

    Args:
        fault: what went wrong: ``"process killed"``.
        moment: where it struck: the layer of a boundary (``"checkpoint"``), or in words.
        policy: of the effect that it struck at: ``"once, ask"``; ``"all"`` for a run that has them
            all.
        database: ``"sqlite"`` or ``"postgres"``.
        times: how many such faults were survived.
    """
    assert fault in ALL, f"{fault!r} is no fault that matrix.faults has"
    path = os.environ.get("DURABLY_PROVED")
    if path is None:
        return
    line = json.dumps([fault, moment, policy, database, times]) + "\n"
    # One write in append mode: several test processes note at once.
    file = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
