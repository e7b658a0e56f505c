"""What does a model that leaves the experiment say of itself? A card, as the Hugging Face Hub has them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.metrics import headline
from rf_notebook.core.operations import verb
from rf_notebook.core.redaction import private, private_json, visible
from rf_notebook.core.values import canonical_json, flatten
from rf_notebook.results.decisions import obeyed_of
from rf_notebook.results.metrics import figures_of, latest_metrics, points_of
from rf_notebook.views.saved import static_bundle
from rf_notebook.views.series import ExperimentSeries

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.values import Json

CARD, CURVES = "README.md", "curves.png"
#: datasets' own builders, by which data of files is named.
_BUILDERS = ("arrow", "csv", "generator", "json", "pandas", "parquet", "text", "dict", "list")
_HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_MOST_ROWS, _LONGEST_CELL = 200, 120
#: Heads of columns that are our own words; others are names of metrics.
_TITLES = (
    *("argument", "value", "package", "version", "step", "samples"),
    *("metric", "this run", "the experiment's other runs"),
)


def hub_name(name: object) -> str | None:
    """A model's or a data set's name on the hub; None for a folder, or what is no name."""
    if not isinstance(name, str) or not _HUB_NAME.fullmatch(name) or _is_there(name):
        return None
    return name


def _is_there(path: str) -> bool:
    try:
        return path != "" and Path(path).exists()
    except (OSError, ValueError):  # too long, say
        return False


def write_card(
    folder: Path, name: str, state: ExperimentState, run_id: int, *, merged: bool
) -> None:
    """Write a card, and a picture of the curves, next to an exported model.

    No path of this machine and no secret is in it; what users typed is shown as code.

    Args:
        folder: Holds the model.
        name: The experiment's.
        state: Its state.
        run_id: Whose model it is.
        merged: Whether it is a whole model.
    """
    from huggingface_hub import ModelCard, ModelCardData

    series = ExperimentSeries()
    series.update(state)
    record = state.record(run_id)
    latest = latest_metrics(state, run_id)
    metric = headline([record.config.method], latest) if latest else None
    picture = static_bundle(name, state, series, metric).get("image/png")
    if picture is not None:
        (folder / CURVES).write_bytes(base64.b64decode(picture))
    base = _base_name(state, record.config)
    data = ModelCardData(
        base_model=base,
        datasets=_datasets(state) or None,
        library_name="transformers" if merged or record.config.peft is None else "peft",
        pipeline_tag="text-generation" if record.config.writes else "text-classification",
        tags=_tags(record.config),
    )
    parts = _body(name, state, run_id, base, metric, merged=merged, has_picture=picture is not None)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(parts)).save(folder / CARD)


def _base_name(state: ExperimentState, config: RunConfig) -> str | None:
    """The base's name on the hub; a loader of the user's may call it as it likes."""
    name = hub_name(config.model.get("model_name"))
    has_loader = (
        state.launch is not None and state.launch.options.get("create_model_fn") is not None
    )
    return None if name is not None and has_loader and "/" not in name else name


def _body(
    name: str,
    state: ExperimentState,
    run_id: int,
    base: str | None,
    metric: str | None,
    *,
    merged: bool,
    has_picture: bool,
) -> Iterable[str]:
    record = state.record(run_id)
    label = state.label(run_id)
    title = label.name or f"run {run_id} of {name}"
    kind = record.config.adapter
    what = "All weights" if kind is None else f"A {kind} adapter"
    yield f"# {_code(title)}\n"
    yield (
        f"{what} of {_code(base) if base else 'a model that is not on the hub'}, trained with "
        f"{record.config.method} by [TRL](https://github.com/huggingface/trl) in `rf_notebook`: "
        f"{record.progress.steps} of {record.progress.total_steps} steps, "
        f"{record.progress.samples} samples."
    )
    if merged and record.config.peft is not None:
        yield "\nThe adapter is folded into the weights."
    if label.note:
        yield "\n" + _block(label.note)
    yield "\n## Use\n\n" + _use(record.config, base, merged=merged)
    yield "\n## Results\n"
    yield _results(state, run_id, metric)
    if has_picture:
        yield f"\n![{metric} by samples, every run of the experiment]({CURVES})\n"
    yield "\n## Evaluations\n"
    yield _evaluations(state, run_id)
    yield "\n## Lineage\n"
    yield from _lineage(state, run_id)
    yield "\n## Config\n"
    yield _table(("argument", "value"), _config_rows(record.config))
    yield "\n## Data\n"
    origin = state.launch.data if state.launch is not None else {}
    yield _block(canonical_json(private_json({"origin": origin, **_data(state)})))
    yield "\n## Versions\n"
    versions = state.started.versions if state.started is not None else {}
    yield _table(("package", "version"), versions.items())


def _tags(config: RunConfig) -> list[str]:
    kind = [] if config.adapter is None else [config.adapter.lower()]
    return ["rf-notebook", "trl", config.method.lower(), *kind]


def _datasets(state: ExperimentState) -> list[str]:
    origin = state.launch.data if state.launch is not None else {}
    named = [one.get("name") for one in origin.values() if isinstance(one, dict)]
    found = (hub_name(name) for name in named if name not in _BUILDERS)
    return list(dict.fromkeys(name for name in found if name is not None))


def _data(state: ExperimentState) -> dict[str, Any]:
    return {} if state.started is None else {"fingerprint": dict(state.started.data)}


def _use(config: RunConfig, base: str | None, *, merged: bool) -> str:
    where = "FOLDER_OR_REPO"
    auto, more = "AutoModelForCausalLM", ""
    if not config.writes:
        auto, more = "AutoModelForSequenceClassification", ", num_labels=1"
    if merged or config.peft is None:
        lines = [
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'model = {auto}.from_pretrained("{where}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{where}")',
        ]
    else:
        lines = [
            "from peft import PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'base = {auto}.from_pretrained("{base or "THE_BASE_MODEL"}"{more})',
            f'model = PeftModel.from_pretrained(base, "{where}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{where}")',
        ]
    return "```python\n" + "\n".join(lines) + "\n```"


def _results(state: ExperimentState, run_id: int, metric: str | None) -> str:
    rows = []
    others = [figures_of(state, one) for one in state.runs if one != run_id]
    for name, value in sorted(figures_of(state, run_id).items()):
        known = [other[name] for other in others if name in other]
        spread = f"{min(known):.4g} to {max(known):.4g}" if known else ""
        rows.append((f"{name}{' (headline)' if name == metric else ''}", f"{value:.4g}", spread))
    return _table(("metric", "this run", "the experiment's other runs"), rows)


def _evaluations(state: ExperimentState, run_id: int) -> str:
    points = [p for p in points_of(state, run_id) if any(n.startswith("eval_") for n in p.metrics)]
    names = list(dict.fromkeys(n for p in points for n in p.metrics if n.startswith("eval_")))[:8]
    rows = [
        (p.step, p.samples, *(f"{p.metrics[n]:.4g}" if n in p.metrics else "" for n in names))
        for p in points
    ]
    return _table(("step", "samples", *names), rows) if rows else "None.\n"


def _lineage(state: ExperimentState, run_id: int) -> Iterable[str]:
    record = state.record(run_id)
    if record.parent_id is None:
        yield "- from the experiment's search"
    else:
        how = (
            "with its adapter as it was" if record.warm_start is not None else "from the beginning"
        )
        edits = canonical_json(private_json(_without_paths(dict(record.edits))))
        yield f"- a clone of run {record.parent_id}, {how}: {_code(edits)}"
    for _, event, child in obeyed_of(state):
        if event.operation.run_id == run_id:
            what = verb(event.operation)
            made = "" if child is None else f" (run {child})"
            why = f": {_code(event.reason)}" if event.reason else ""
            yield f"- {what}{made} at step {event.steps}, by {_code(event.origin)}{why}"


def _config_rows(config: RunConfig) -> Iterable[tuple[str, str]]:
    for key, value in flatten(config.as_json()).items():
        told = private_json(_without_paths(value))
        yield key, told if isinstance(told, str) else canonical_json(told)


def _without_paths(value: Json) -> Json:
    if isinstance(value, str):
        return "a path of another machine" if _is_path(value) else value
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items()}
    return value


def _is_path(text: str) -> bool:
    return Path(text).is_absolute() or text.startswith((".", "~")) or _is_there(text)


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = [title if title in _TITLES else _code(title) for title in head]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for place, row in enumerate(rows):
        if place == _MOST_ROWS:
            lines.append(f"| more than {_MOST_ROWS} rows |")
            break
        lines.append(
            "| " + " | ".join(_code(str(cell)) if cell != "" else "" for cell in row) + " |"
        )
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Without secrets, and with what hides in it as escapes."""
    return visible(private(text))


def _code(text: str) -> str:
    """As code in a line of Markdown, or in a table's cell, where nothing in it acts."""
    short = text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"
    line = " ".join(_plain(short).split())
    return f"`{line.replace('`', chr(39)).replace('|', chr(0xA6))}`"


def _block(text: str) -> str:
    """As a block of code, whatever fences are in it."""
    return "\n".join(f"    {line}" for line in _plain(text).splitlines()) + "\n"
