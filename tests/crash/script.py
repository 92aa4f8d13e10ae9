"""A script that runs one agent to its end: ``python -m crash.script FOLDER SCENARIO [STRIKE]``.

Killed and started again, it goes on where it was: that is all there is to do after a crash.
"""

import asyncio
import sys
from pathlib import Path

from crash.children import die_at
from crash.scenarios import KEY, PROMPT, SCENARIOS
from crash.worker_process import strike
from crash.world import World


async def main(folder: Path, scenario: str) -> None:
    app, agent = SCENARIOS[scenario].app(World(folder))
    async with app:
        print(await app.run(agent, PROMPT, key=KEY))


if __name__ == "__main__":
    _, where, what, *when = sys.argv
    if when:
        die_at(Path(where), strike(when[0]))
    asyncio.run(main(Path(where), what))
