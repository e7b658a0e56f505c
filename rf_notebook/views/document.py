"""How is text brought to a page so that it stays text?

A document is a tree of nodes. The live panel sends it as JSON and its script builds elements with
``createElement`` and ``textContent``; a saved notebook holds the same tree as escaped HTML. Tags
and attributes come from closed lists, so neither way can carry markup out of a name, a config or an
error.
"""

from __future__ import annotations

import html
from typing import Any

#: Text, or [tag, attributes, children].
Node = str | list[Any]

_HTML_TAGS = frozenset(
    [
        "div",
        "span",
        "b",
        "i",
        "code",
        "pre",
        "p",
        "ul",
        "ol",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "button",
        "details",
        "summary",
        "section",
        "h3",
        "h4",
        "dl",
        "dt",
        "dd",
        "img",
    ]
)
_SVG_TAGS = frozenset(["svg", "g", "path", "line", "rect", "circle", "text", "title", "polyline"])
_ATTRIBUTES = frozenset(
    [
        "class",
        "id",
        "role",
        "title",
        "tabindex",
        "disabled",
        "colspan",
        "scope",
        "open",
        "style",
        "alt",
        "width",
        "height",
        "viewBox",
        "d",
        "x",
        "y",
        "x1",
        "x2",
        "y1",
        "y2",
        "cx",
        "cy",
        "r",
        "points",
        "fill",
        "stroke",
        "stroke-width",
        "stroke-dasharray",
        "opacity",
        "text-anchor",
        "font-family",
        "font-size",
        "font-weight",
        "transform",
        "preserveAspectRatio",
        "data-action",
        "data-run",
        "src",
    ]
)


def element(tag: str, *children: Node | None, **attributes: object) -> Node:
    """A node.

    ``class_`` and ``for_`` lose their underscore, other underscores become hyphens; None is left
    out.

    Raises:
        ValueError: for a tag or an attribute that documents do not have.
    """
    if tag not in _HTML_TAGS and tag not in _SVG_TAGS:
        raise ValueError(f"documents have no element {tag!r}.")
    named = {}
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if name not in _ATTRIBUTES and not name.startswith("aria-"):
            raise ValueError(f"documents have no attribute {name!r}.")
        if name == "src" and not str(value).startswith("data:image/"):
            raise ValueError("an image of a document is a data: URL.")
        if value is not None and value is not False:
            named[name] = "" if value is True else str(value)
    return [tag, named, [child for child in children if child is not None]]


def to_html(node: Node) -> str:
    """The node as HTML; every text and every attribute's value is escaped."""
    if isinstance(node, str):
        return html.escape(node)
    tag, attributes, children = node
    written = "".join(f' {name}="{html.escape(value)}"' for name, value in attributes.items())
    if tag == "img":
        return f"<{tag}{written}>"
    return f"<{tag}{written}>{''.join(map(to_html, children))}</{tag}>"


def text_of(node: Node) -> str:
    """All text of a node."""
    return node if isinstance(node, str) else " ".join(filter(None, map(text_of, node[2])))
