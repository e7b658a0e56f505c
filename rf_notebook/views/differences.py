"""In what do two experiments differ, side by side?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rf_notebook.views.document import Node, element
from rf_notebook.views.words import NAME_LENGTH, shortened

if TYPE_CHECKING:
    from rf_notebook.record.differences import Difference

_MOST = 200
_LONGEST = 200


def differences_table(found: Sequence[Difference], first: str, second: str) -> Node:
    """Their configs, data, functions, cells, versions, operations and results, where they are not the same.

    Args:
        found: The differences.
        first: The name of the experiment whose panel it is.
        second: The other's.
    """
    if not found:
        return element("p", "They do not differ.", class_="rf-dim")
    heads = ("", "", first, second)
    lines = []
    before = ""
    for one in found[:_MOST]:
        part = one.part if one.part != before else ""
        before = one.part
        cells = (part, one.what, one.first, one.second)
        lines.append(
            element(
                "tr",
                element("td", element("b", cells[0])),
                element("th", shortened(cells[1], _LONGEST), scope="row"),
                *(element("td", shortened(cell, _LONGEST)) for cell in cells[2:]),
            )
        )
    more = len(found) - _MOST
    return element(
        "div",
        element(
            "table",
            element(
                "thead",
                element("tr", *(element("th", shortened(one, NAME_LENGTH)) for one in heads)),
            ),
            element("tbody", *lines),
        ),
        element("p", f"and {more} more", class_="rf-dim") if more > 0 else "",
        class_="rf-differences",
    )
