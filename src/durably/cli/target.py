"""Which ledger and which agents a command works on: ``--app``, ``--url`` and the settings.

Owns finding and importing the application; what is done with it is each command's.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from durably.cli.exits import Refused, debugging
from durably.config import Settings

if TYPE_CHECKING:
    from types import ModuleType

    from durably.app import Durably

HOW = "write module:attribute, such as support.agents:app"


class Target(NamedTuple):
    """What the user said about where to work."""

    app: str | None = None
    url: str | None = None

    def find(self) -> Durably:
        """The application if one is named (here or in the settings), else just the ledger.

        Raises:
            Refused, ConfigError: the application cannot be imported; the URL names no database.
        """
        from durably.app import Durably

        path = self._path()
        return Durably(self.url) if path is None else load_app(path)

    def find_app(self) -> Durably:
        """The application; for commands that need agents.

        Raises:
            Refused: none is named, or it cannot be imported.
        """
        path = self._path()
        if path is None:
            raise Refused(f"Which application? Add --app or set DURABLY_APP: {HOW}.")
        return load_app(path)

    @property
    def names_app(self) -> bool:
        """True if the user, or the settings, name an application."""
        return self._path() is not None

    def _path(self) -> str | None:
        if self.app is not None and self.url is not None:
            raise Refused("Give --app or --url, not both: an application knows its own ledger.")
        if self.url is not None:
            return None
        return Settings.load(app=self.app).app


def work_on[T](
    durably: Durably, work: Callable[[Durably], Awaitable[T]], *, create: bool = False
) -> T:
    """Open the ledger, do the work, let go of it.

    Args:
        create: make the ledger if there is none; a command that only looks refuses instead.
    """
    import asyncio

    async def opened() -> T:
        await durably.open(create=create)
        try:
            return await work(durably)
        finally:
            await durably.close()

    return asyncio.run(opened())


def shown_url(url: str) -> str:
    """A database URL that may be printed: without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


def load_app(path: str) -> Durably:
    """Import ``module:attribute`` with the current directory on the path.

    Raises:
        Refused: the path, the import or what was found there is wrong; the message says which.
    """
    from durably.app import Durably

    name, _, attribute = path.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", name) or not re.fullmatch(r"(\w+(\.\w+)*)?", attribute):
        raise Refused(f"--app {path!r} names no application: {HOW}.")
    found = _attribute(_module(name), attribute or "app")
    if callable(found) and not isinstance(found, Durably):
        found = _call(path, found)
    if not isinstance(found, Durably):
        raise Refused(f"{path} is a {type(found).__name__}, not a Durably: {HOW}.")
    return found


def load_function(option: str, path: str) -> Callable[..., object]:
    """Import ``module:function`` with the current directory on the path.

    Raises:
        Refused: there is none; the message names the option.
    """
    name, _, attribute = path.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", name) or not re.fullmatch(r"\w+(\.\w+)*", attribute):
        raise Refused(f"{option} {path!r} names no function: write module:function.")
    found = _attribute(_module(name), attribute)
    if not callable(found):
        raise Refused(f"{option} {path} is a {type(found).__name__}, not a function.")
    return found


def import_module_of(path: str) -> None:
    """Import the module of ``module:attribute``, and look at nothing in it.

    Raises:
        Refused: as for `load_app`.
    """
    _module(path.partition(":")[0])


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Refused(f"There is no module {error.name!r} here ({here}): {HOW}.") from error
        raise _failed(f"Importing {name!r}", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"Importing {name!r}", error) from error


def _attribute(module: ModuleType, attribute: str) -> object:
    from durably.app import Durably

    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name, value in vars(module).items() if isinstance(value, Durably)]
            hint = f" It has: {', '.join(names)}." if names else ""
            raise Refused(f"Module {module.__name__!r} has no {attribute!r}.{hint}")
        found = getattr(found, part)
    return found


def _call(path: str, factory: Callable[[], object]) -> object:
    if inspect.iscoroutinefunction(factory):
        raise Refused(f"{path} is async: let a plain function return the Durably.")
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise _failed(f"Calling {path}", error) from error


def _failed(what: str, error: BaseException) -> Refused:
    hint = "" if debugging() else " (--debug shows where)"
    return Refused(f"{what} failed: {type(error).__name__}: {error}{hint}")
