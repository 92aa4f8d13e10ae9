"""Keys in addresses: any text, also one of several lines, which `path` does not match.

``{key:any}`` in the path of a route; importing this makes it known.
"""

from __future__ import annotations

from starlette.convertors import PathConvertor, register_url_convertor


class AnyText(PathConvertor):
    """All that is left of an address, whatever is in it."""

    regex = "(?s:.*)"


register_url_convertor("any", AnyText())
