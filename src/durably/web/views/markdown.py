"""Markdown that a model or a person wrote as HTML that can do nothing.

Owns what is let through: text, lists, tables, code and links to the web; no image, no HTML of
theirs, no style, no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from durably.web.views.text import visible

LIMIT = 20_000
"""Characters of Markdown that are rendered at most."""

KEPT = 500
"""Texts whose HTML is kept: messages never change, and are shown again and again."""

TAGS = {
    "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a",
    "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip

ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}

SCHEMES = {"http", "https", "mailto"}

_HEADINGS = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6"}
"""The page's own headings are above those of whoever wrote."""


def to_html(text: str) -> Markup:
    """Sanitised HTML of the first `LIMIT` characters."""
    return _html(text[:LIMIT])


@lru_cache(KEPT)
def _html(text: str) -> Markup:
    text = visible(text)
    html = f"<pre>{escape(text)}</pre>"
    if _quick_to_parse(text):
        with suppress(RecursionError):
            html = _parser.render(text)
    clean = nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
        strip_comments=True,
    )
    return Markup(clean)


def _quick_to_parse(text: str) -> bool:
    # What nobody writes: the time that links and emphasis take grows with the square of them.
    return text.count("[") <= 600 and text.count("*") + text.count("_") <= 4000


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True})
    parser.enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image_as_link)
    parser.add_render_rule("heading_open", _lowered)
    parser.add_render_rule("heading_close", _lowered)
    return parser


def _image_as_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    # An image from elsewhere would tell its server who reads this.
    source = str(tokens[index].attrGet("src") or "")
    name = tokens[index].content or source
    return f'<a href="{escape(source)}">{escape(name)}</a>'


def _lowered(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    tokens[index].tag = _HEADINGS.get(tokens[index].tag, "h6")
    return renderer.renderToken(tokens, index, options, env)


_parser = _make_parser()
