"""The form that clones a run.

Its config as fields, several values make several clones, the difference is shown first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.automl.typed_text import argument_of, config_keys, edits_of
from rf_notebook.automl.validation import unknown_argument
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.values import Json, flatten
from rf_notebook.results.frames import varying_knobs
from rf_notebook.views.document import Node, element
from rf_notebook.views.words import config_value, duration, knob_name, shortened, size
from rf_notebook.widgets.elements import Document, StyledDocument, button, reachable_while_busy

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.widgets.protocols import PanelCommands, PanelSession

#: Shown even where all runs agree in them: what people change most.
_USUAL = (
    "training_args.learning_rate",
    "peft_config.r",
    "peft_config.lora_alpha",
    "peft_config.target_modules",
    "training_args.per_device_train_batch_size",
    "training_args.num_train_epochs",
)
_MOST_FIELDS = 8
_SHOWN_CLONES = 6
_TEXT = 300


class CloneForm:
    """Opened for one run at a time; ``box`` is what is shown."""

    def __init__(
        self, session: PanelSession, commands: PanelCommands, on_sent: Callable[[Any], None]
    ) -> None:
        """A closed form.

        Args:
            session: The experiment.
            commands: Add the clones.
            on_sent: Called with the receipt of what was submitted.
        """
        self._session, self._commands = session, commands
        self._on_sent = on_sent
        self._lock = threading.RLock()
        self._run_id: int | None = None
        self._fields: dict[str, ipywidgets.Combobox] = {}
        self._original: dict[str, str] = {}
        self.edits: list[dict[str, Any]] = []
        """What would be submitted now; empty while something is wrong."""
        self.title = StyledDocument()  # the form can be shown without the panel
        self._rows = ipywidgets.VBox()
        self.more = reachable_while_busy(
            ipywidgets.Combobox(placeholder="warmup, weight_decay, …", continuous_update=False)
        )
        self.more.description = "find another knob"
        self.more.add_class("rf-field")
        self.warm = reachable_while_busy(
            ipywidgets.Checkbox(description="Warm start", indent=False)
        )
        self._warm_words = reachable_while_busy(Document())
        self.diff = reachable_while_busy(Document())
        self.submit = button(
            "Start clone", style="primary", tooltip="add the clones to the experiment"
        )
        self.cancel = button("Cancel", tooltip="close this form")
        fields = ipywidgets.VBox([self.title, self._rows, self.more, self.warm, self._warm_words])
        fields.add_class("rf-form-fields")
        self.right = ipywidgets.VBox([self.diff, ipywidgets.HBox([self.submit, self.cancel])])
        self.right.add_class("rf-form-diff")
        self.box = ipywidgets.HBox([fields, self.right])
        self.box.add_class("rf-form")
        self.box.layout.display = "none"
        self.more.observe(self._add_found, names="value")
        self.warm.observe(lambda _change: self._check(), names="value")
        self.submit.on_click(lambda _button: self._send())
        self.cancel.on_click(lambda _button: self.close())

    def open(self, run_id: int, *, warm: bool) -> None:
        """Show the form for a run."""
        with self._lock:
            state = self._session.recent_state
            record = state.record(run_id)
            config = record.config
            flat = flatten(config.as_json())
            offered = {} if record.failure is None else record.failure.retry
            self._run_id, self._fields, self._original = run_id, {}, {}
            knobs = [key for key in varying_knobs(state) if _is_editable(key, flat.get(key))]
            usual = [
                key
                for key in _USUAL
                if config.peft is not None or not key.startswith("peft_config.")
            ]
            first = list(dict.fromkeys([*offered, *knobs, *usual]))[:_MOST_FIELDS]
            keys = config_keys(config)
            for key in first:
                self._add(key, config, flat)
            self._rows.children = tuple(self._fields.values())
            self.more.options = tuple(sorted(key for key in keys if key not in self._fields))
            self.more.value = ""
            rest = len(keys) - len(self._fields)
            self.title.show(
                element(
                    "p",
                    element("b", f"Clone run {run_id}"),
                    element(
                        "span",
                        "  what ran out of memory, with half the batch and twice the accumulation"
                        if offered
                        else f"  the search's knobs first, {rest} more below; several values make several clones",
                        class_="rf-dim",
                    ),
                )
            )
            for key, value in offered.items():
                self._fields[key].value = _typed(value)
            self.warm.value = warm
            self.box.layout.display = None
            self._check()

    def close(self) -> None:
        """Hide the form."""
        with self._lock:
            self._run_id = None
            self.box.layout.display = "none"

    @property
    def fields(self) -> dict[str, ipywidgets.Combobox]:
        """The fields that are shown, by dotted key."""
        return dict(self._fields)

    def _add(self, key: str, config: RunConfig, flat: dict[str, Json]) -> None:
        text = _typed(flat[key]) if key in flat else ""
        field = reachable_while_busy(
            ipywidgets.Combobox(
                value=text,
                description=knob_name(key),
                tooltip=key,
                placeholder=_placeholder(key, config),
                options=tuple(_options(key, config)),
                continuous_update=True,
            )
        )
        field.add_class("rf-field")
        self._fields[key], self._original[key] = field, text
        field.observe(lambda _change: self._check(), names="value")

    def _add_found(self, change: Any) -> None:
        with self._lock:
            if self._run_id is None:
                return
            config = self._session.recent_state.record(self._run_id).config
            key = _key_of(change["new"], config)
            if key is None or key in self._fields:
                self._check()  # which says so when there is no such knob
                return
            self._add(key, config, flatten(config.as_json()))
            self._rows.children = tuple(self._fields.values())
            self.more.options = tuple(option for option in self.more.options if option != key)
            self.more.value = ""

    def _check(self) -> None:
        """Judge what is typed, and show what it would make."""
        with self._lock:
            if self._run_id is None:
                return
            state = self._session.recent_state
            config = state.record(self._run_id).config
            typed = {
                key: field.value
                for key, field in self._fields.items()
                if field.value != self._original[key] and field.value.strip()
            }
            for key, field in self._fields.items():
                (field.add_class if key in typed else field.remove_class)("rf-changed")
            try:
                if self.more.value.strip() and _key_of(self.more.value, config) is None:
                    raise unknown_argument(
                        "the config", self.more.value.strip(), map(knob_name, config_keys(config))
                    )
                made = edits_of(typed, config)
                changes = [self._commands.check_edits(self._run_id, edit)[1] for edit in made]
            except RFNotebookError as error:
                self.edits = []
                self.diff.show(
                    element("p", shortened(str(error), _TEXT), class_="rf-problem", role="alert")
                )
                self._set_submit(0)
                return
            self.edits = made
            before = flatten(config.as_json())
            self.diff.show(self._difference(changes, before))
            self._warm_words.show(self._warm_sentence(changes))
            self._set_submit(len(made))

    def _set_submit(self, count: int) -> None:
        self.submit.disabled = count == 0
        self.submit.description = f"Start {count} clones" if count > 1 else "Start clone"
        self.submit.tooltip = (
            "fix the error first" if count == 0 else f"add {count} to the experiment"
        )

    def _difference(self, changes: list[dict[str, Json]], before: dict[str, Json]) -> Node:
        run_id = self._run_id
        first = max(self._session.recent_state.runs) + 1
        count = f"{len(changes)} new runs" if len(changes) > 1 else "One new run"
        parts: list[Node] = [element("b", count)]
        for number, changed in enumerate(changes[:_SHOWN_CLONES]):
            words = (
                f"{first + number} = run {run_id} with"
                if changed
                else f"{first + number} = run {run_id}, unchanged"
            )
            parts.append(element("div", words, class_="rf-dim"))
            for key, value in changed.items():
                old = (
                    shortened(config_value(before[key]), _TEXT) if key in before else "its default"
                )
                parts.append(element("div", f"- {knob_name(key)} {old}", class_="rf-minus"))
                parts.append(
                    element(
                        "div",
                        f"+ {knob_name(key)} {shortened(config_value(value), _TEXT)}",
                        class_="rf-plus",
                    )
                )
        if len(changes) > _SHOWN_CLONES:
            parts.append(
                element("div", f"and {len(changes) - _SHOWN_CLONES} more", class_="rf-dim")
            )
        parts.append(element("p", self._catching_up(len(changes)), class_="rf-dim"))
        return element("div", *parts)

    def _catching_up(self, count: int) -> str:
        state = self._session.recent_state
        assert self._run_id is not None
        parent = state.record(self._run_id)
        others = [record.progress.samples for record in state.ready()]
        to_catch = min(others, default=0)
        spent = parent.train_seconds + parent.overhead_seconds
        pace = spent / parent.progress.samples if parent.progress.samples and spent else None
        words = (
            f"They catch up to sample {to_catch:,} first"
            if to_catch
            else "They take turns with the others"
        )
        if to_catch and pace is not None:
            words += f", about {duration(pace * to_catch * count)}, then take turns with the others"
        if parent.own_bytes:
            words += f". Needs about {size(parent.own_bytes * count)} of memory"
        return words + "."

    def _warm_sentence(self, changes: list[dict[str, Json]]) -> Node:
        assert self._run_id is not None
        state = self._session.recent_state
        record, live = state.record(self._run_id), state.live.get(self._run_id)
        done = (record.progress if live is None else live.progress).steps
        if done == 0:
            return element(
                "p",
                f"Run {self._run_id} has trained no step yet, so there is nothing to start from.",
                class_="rf-dim",
            )
        keys = {key for changed in changes for key in changed}
        if "peft_config" in keys or record.config.peft is None:
            words = "All weights that both have are copied; the optimizer starts fresh."
        elif "peft_config.r" in keys:
            ranks = [
                changed.get("peft_config.r") for changed in changes if "peft_config.r" in changed
            ]
            own = record.config.peft.get("r", 8)
            smaller = any(
                isinstance(rank, int) and isinstance(own, int) and rank < own for rank in ranks
            )
            words = (
                "A smaller rank keeps the best approximation of the parent's adapter and says how much was lost."
                if smaller
                else "The parent's function is kept exactly; the new directions start at zero."
            )
        elif "peft_config.target_modules" in keys:
            words = "Modules that both adapt are copied, added ones start at zero, dropped ones are reported."
        else:
            words = "Same rank: the parent's function is kept exactly; the optimizer starts fresh."
        return element("p", f"From run {self._run_id} at step {done}. {words}", class_="rf-dim")

    def _send(self) -> None:
        with self._lock:
            if self._run_id is None or not self.edits:
                return
            try:
                receipt = self._commands.clone_all(
                    self._run_id, self.edits, bool(self.warm.value), "button"
                )
            except RFNotebookError as error:
                self.diff.show(
                    element("p", shortened(str(error), _TEXT), class_="rf-problem", role="alert")
                )
                return
            self._on_sent(receipt)
            self.close()


def _key_of(text: str, config: RunConfig) -> str | None:
    """The dotted key that somebody means, who may type the knob's name alone.

    None when there is none such.
    """
    keys = config_keys(config)
    found = [key for key in keys if text.strip() in (key, knob_name(key))]
    return found[0] if found else None


def _typed(value: Json) -> str:
    """A value as it would be typed into its field."""
    if isinstance(value, str) and ("," in value or "|" in value):
        return repr(value)
    return config_value(value)


def _is_editable(key: str, value: Json) -> bool:
    """Functions and secrets cannot be typed."""
    return (
        not (isinstance(value, dict) and ("$object" in value or "$secret" in value))
        and key != "trainer_type"
    )


def _placeholder(key: str, config: RunConfig) -> str:
    argument = argument_of(key, config)
    return f"default {argument.default!r}"[:60] if argument is not None else ""


def _options(key: str, config: RunConfig) -> Iterable[str]:
    argument = argument_of(key, config)
    if argument is not None and "bool" in argument.annotation:
        return ("True", "False")
    if knob_name(key) == "target_modules":
        return ("all-linear", "q_proj, v_proj", "q_proj, k_proj, v_proj, o_proj")
    return ()
