"""The REST API and the dashboard: what a run is doing, and what people do about it, over HTTP.

Owns the public names; needs the extra ``durably[web]``.
"""

from __future__ import annotations

from durably.errors import ConfigError

try:
    from durably.web.access import Access, OpenAccess, Person, Role
    from durably.web.server import create_app, lifespan, router
    from durably.web.site import Redact, Site
    from durably.web.tokens import TokenAccess
except ModuleNotFoundError as error:
    raise ConfigError(
        f"The web needs {error.name!r}, which is not installed: pip install 'durably[web]'."
    ) from error

__all__ = [
    "Access",
    "OpenAccess",
    "Person",
    "Redact",
    "Role",
    "Site",
    "TokenAccess",
    "create_app",
    "lifespan",
    "router",
]
