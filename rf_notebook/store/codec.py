"""How does an event become JSON and come back?

Checked by pydantic: a database from elsewhere is untrusted input.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from rf_notebook.core import events as events_module
from rf_notebook.core.errors import RecordDamaged, StoreError
from rf_notebook.core.events import Event, OperationObeyed
from rf_notebook.core.operations import Operation
from rf_notebook.core.run import RunState

#: Of the JSON form. Raise it when an old payload would no longer read, and convert in ``decode``.
VERSION = 1

_EVENTS: dict[str, type] = {cls.__name__: cls for cls in get_args(events_module.Event)}


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(_EVENTS[kind])


def encode(event: Event) -> tuple[str, str]:
    """The event's kind and its payload as JSON text."""
    body = asdict(event)
    if isinstance(event, OperationObeyed):
        body["operation"]["kind"] = type(event.operation).__name__
        body["operation"].pop("functions", None)  # they have an event of their own
    return type(event).__name__, json.dumps(body, separators=(",", ":"))


def decode(kind: str, version: int, payload: str) -> Event:
    """The event of a kind and payload.

    Raises:
        RecordDamaged: when the text is no event.
        StoreError: when it is one that this version does not know.
    """
    if version > VERSION or kind not in _EVENTS:
        raise StoreError(
            f"the record holds an event {kind!r} of version {version}, which this rf_notebook does not know "
            f"(it reads up to {VERSION}). Update rf_notebook."
        )
    try:
        body = json.loads(payload)
        if kind == OperationObeyed.__name__:
            return _decode_operation(body)
        return _adapter(kind).validate_python(body)  # type: ignore[no-any-return]
    except (ValueError, ValidationError, KeyError, TypeError, RecursionError) as error:
        raise RecordDamaged(
            f"the record holds a damaged {kind}: {str(error).splitlines()[0]}."
        ) from error


def _decode_operation(body: dict[str, Any]) -> OperationObeyed:
    operation = dict(body["operation"])
    kinds = {cls.__name__: cls for cls in get_args(Operation)}
    cls = kinds[operation.pop("kind")]
    parsed = TypeAdapter(cls).validate_python(operation)
    rest = {key: body[key] for key in ("steps", "samples", "origin")}
    state = body.get("run_state")
    reason = str(body.get("reason", ""))
    return OperationObeyed(
        operation=parsed,
        run_state=None if state is None else RunState(state),
        reason=reason,
        **rest,
    )
