"""HTML and SVG as nested calls. Text is escaped unless it is ``Markup``, and only ``tag`` and ``raw`` make that."""

from __future__ import annotations

import html

from lastcall_drill.reports.text import clean

# HTML's elements without content. SVG's are closed by their end tags, which HTML parsers take as well.
_VOID = frozenset({"br", "hr", "input", "link", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def raw(text: str) -> Markup:
    """``text`` as it is. Only for text of our own."""
    return Markup(text)


def escape(text: str) -> Markup:
    """``text`` as the content of an element or of a quoted attribute."""
    return text if isinstance(text, Markup) else Markup(html.escape(clean(text)))


def join(*parts: str) -> Markup:
    """The parts one after the other, escaped where they are not markup."""
    return Markup("".join(map(escape, parts)))


def tag(name: str, /, *children: str, **attributes: str | int | bool | None) -> Markup:
    """One element.

    An attribute of None or False is left out, of True has no value. ``class_`` and ``data_x`` are written as ``class``
    and ``data-x``.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(key: str, value: str | int | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{escape(str(value))}"'
