"""Elements of HTML and SVG whose texts and attributes are escaped, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = {"br", "meta", "img", "path", "line", "circle", "rect"}


class Markup(str):
    """Text that is markup already. Only this module and literals make it, never what was read from a file."""

    __slots__ = ()


Child = str | Iterable["Child"]


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """One element; ``class_`` and ``stroke_width`` stand for class and stroke-width, None leaves an attribute out."""
    words = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    start = f"<{name}{''.join(words)}"
    return Markup(f"{start}/>" if name in VOID and not children else f"{start}>{inner(children)}</{name}>")


def inner(children: Child) -> Markup:
    """Children one after the other; plain text is escaped."""
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return Markup(escape(children))
    return Markup("".join(inner(child) for child in children))
