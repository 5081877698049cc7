"""HTML written by a function that escapes: text never becomes markup, whoever wrote it."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "input", "link", "meta"})


class Markup(str):
    """HTML that was made here. Any other string is text, and is escaped where it is put in."""

    __slots__ = ()


Child = str | Markup | None


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: str | int | bool) -> Markup:
    """An element: ``tag("p", "1 < 2", class_="note", aria_label="x")``.

    Args:
        name: of the element.
        children: elements, texts, None (nothing), or sequences of them.
        attributes: underscores are hyphens, one at the end is dropped; True stands alone, False is
            left out.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Child | Iterable[Child]) -> Markup:
    """Elements and texts, one after the other."""
    return Markup("".join(_child(child) for child in children))


def _child(child: Child | Iterable[Child]) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, str):
        return html.escape(child)
    return "".join(_child(one) for one in child)


def _attribute(key: str, value: str | int | bool) -> str:  # noqa: FBT001 - an attribute's value
    if value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
