"""How busy this machine is: what short leases, and times of a schedule, are stretched by."""

from __future__ import annotations

import time

MEASURED_SECONDS = 0.3
MOST_PACE = 5.0


def pace_of_this_machine() -> float:
    """How many times as long everything takes here as on a machine that does nothing else.

    On a busy machine workers would else be dead before they have done anything, and their leases
    over although they are well.
    """
    began, worked = time.perf_counter(), time.thread_time()
    while time.thread_time() - worked < MEASURED_SECONDS:
        pass
    return min(max((time.perf_counter() - began) / MEASURED_SECONDS / 2, 1.0), MOST_PACE)
