"""The application of a site as it is deployed: ``durably worker --app faults.deployed:make``."""

import os
from pathlib import Path

from crash.world import World
from durably import Durably
from faults import shift


def make() -> Durably:
    """The application; ``SITE`` names the folder of its world."""
    return shift.app(World(Path(os.environ["SITE"])))
