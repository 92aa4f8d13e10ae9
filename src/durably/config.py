"""Settings: arguments win over environment, environment over durably.toml, that over pyproject.

Owns where settings are looked for; what they mean is said where they are used.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
            url=url or str(found.get("url", DEFAULT_URL)),
            app=app or (str(found["app"]) if "app" in found else None),
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
            data = data.get(part, {})
        if unknown := sorted(set(data) - set(KNOWN)):
            raise ConfigError(
                f"{path}: unknown setting {unknown[0]!r}; there are {', '.join(KNOWN)}."
            )
        found.update(data)
    return found


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        return float(str(value))
    except ValueError:
        raise ConfigError(f"{name} = {value!r}: a number of seconds, such as 30.") from None
