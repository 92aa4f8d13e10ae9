"""Settings: arguments win over environment, environment over durably.toml, that over pyproject.

Owns where settings are looked for; what they mean is said where they are used.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from durably.errors import ConfigError

DEFAULT_URL = "sqlite:///durably.db"

KNOWN = ("url", "app", "lease", "grace")
"""The settings there are; another one in a file is a typing error."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set outside the code.

    Attributes:
        url: the database; ``DURABLY_URL``.
        app: where the command line finds the application, ``module:attribute``; ``DURABLY_APP``.
        lease: seconds; ``DURABLY_LEASE``.
        grace: seconds; ``DURABLY_GRACE``.
    """

    url: str = DEFAULT_URL
    app: str | None = None
    lease: float | None = None
    grace: float | None = None

    @classmethod
    def load(
        cls,
        *,
        url: str | None = None,
        app: str | None = None,
        environ: Mapping[str, str] = os.environ,
        folder: Path | None = None,
    ) -> Settings:
        """Settings for this process; ``[tool.durably]`` in pyproject.toml, or durably.toml.

        Raises:
            ConfigError: a file cannot be read, a setting is unknown or of the wrong kind.
        """
        found = _from_files(folder or Path.cwd())
        for name in KNOWN:
            if value := environ.get(f"DURABLY_{name.upper()}"):
                found[name] = value
        return cls(
            url=url or found.get("url", DEFAULT_URL),
            app=app or found.get("app"),
            lease=_seconds("lease", found.get("lease")),
            grace=_seconds("grace", found.get("grace")),
        )


def _from_files(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, table in (("pyproject.toml", ("tool", "durably")), ("durably.toml", ())):
        path = folder / name
        if not path.is_file():
            continue
        try:
            data: Any = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{path}: {error}") from error
        for part in table:
            data = _table(path, part, data.get(part, {}))
        if unknown := sorted(set(data) - set(KNOWN)):
            raise ConfigError(
                f"{path}: unknown setting {unknown[0]!r}; there are {', '.join(KNOWN)}."
            )
        for name in ("url", "app"):
            if not isinstance(data.get(name, ""), str):
                raise ConfigError(f"{path}: {name} = {data[name]!r} is no text.")
        found.update(data)
    return found


def _table(path: Path, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {name} is no table.")
    return cast("dict[str, Any]", value)


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:  # also refuses NaN
        raise ConfigError(f"{name} = {value!r}: a number of seconds, such as 30.")
    return seconds
