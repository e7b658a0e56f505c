"""What does a row of the data ask, and which answer does it expect?

For metrics of generated texts, and for samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trl.data_utils import maybe_convert_to_chatml

from rf_notebook.core.errors import ConfigError

#: Columns that hold a question or an answer in the data that people have, the likelier ones first.
_QUESTIONS = ("instruction", "prompt", "input", "question")
_ANSWERS = ("completion", "response", "output", "answer", "chosen")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question of the data and its answer."""

    asked: str | list[dict[str, Any]]
    """A whole text, or messages, to which the chat template is applied."""
    expected: str
    is_guess: bool = False
    """Whether the row does not say which part of it is the answer, so that all of it stands for
    both."""

    @property
    def is_chat(self) -> bool:
        """Whether the question is messages."""
        return not isinstance(self.asked, str)

    @property
    def words(self) -> str:
        """The question as a person reads it, without the marks of a template."""
        if isinstance(self.asked, str):
            return self.asked
        return "\n".join(f"{message.get('role', '')}: {_said(message)}" for message in self.asked)

    def prompt(self, tokenizer: Any, *, add_generation_prompt: bool = True) -> str:
        """The text to generate from.

        Args:
            tokenizer: The run's tokenizer.
            add_generation_prompt: Whether the chat template begins the answer.
        """
        if isinstance(self.asked, str):
            return self.asked
        text: str = tokenizer.apply_chat_template(
            self.asked, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether a row holds messages, to which trl applies the chat template."""
    return any(
        _holds_messages(row.get(name))
        for name in ("messages", "conversations", "prompt", "chosen", "completion")
    )


def exchange_of(
    row: Mapping[str, Any],
    raw: Mapping[str, Any],
    text_column: str = "text",
    *,
    needs_answer: bool = True,
) -> Exchange:
    """The question and the answer of a row.

    A text that was made of both (``"Question: ... Answer: ..."``) is cut before the answer, which
    is looked up in the columns that the row had before it was formatted; so a run is asked just as
    it was trained.

    Args:
        row: In the columns that the run trains on.
        raw: The same row as the user handed it in.
        text_column: Where the whole text is, when the run trains on one.
        needs_answer: Whether a question alone will not do; without it, what is expected may be
            empty.

    Raises:
        ConfigError: when no column is known to hold a question or an answer.
    """
    known = {**raw, **row}
    if "prompt" in row:
        answer = _first(known, _ANSWERS)
        if answer is not None or not needs_answer:
            return Exchange(_question(row["prompt"]), answer or "")
    for name in ("messages", "conversations", "chosen"):
        if _holds_messages(row.get(name)):
            *before, last = next(iter(maybe_convert_to_chatml({name: row[name]}).values()))
            return Exchange(before, _text(last["content"]))
    for name in (text_column, "text"):
        if name in row:
            return _of_text(_text(row[name]), known)
    question, answer = _first(known, _QUESTIONS), _first(known, _ANSWERS)
    if question is not None and (answer is not None or not needs_answer):
        return Exchange(question, answer or "")
    raise ConfigError(
        "compute_metrics with a generation_config needs rows with a prompt and a completion (or messages); "
        f"the evaluation rows have {', '.join(known)}. Make them in formatting_func."
    )


def _of_text(text: str, known: Mapping[str, Any]) -> Exchange:
    answer = _first(known, _ANSWERS)
    if answer is None:
        return Exchange(text, text, is_guess=True)
    begins = text.rfind(answer.strip()) if answer.strip() else -1
    if begins > 0:
        # The space before an answer belongs to its first token.
        return Exchange(text[:begins].rstrip(" "), answer)
    question = _first(known, _QUESTIONS)
    return Exchange(question or text, answer)


def _question(value: Any) -> str | list[dict[str, Any]]:
    return value if isinstance(value, str) else list(value)


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The text of the first of these columns that has one."""
    return next((_text(row[name]) for name in names if row.get(name)), None)


def _said(message: Mapping[str, Any]) -> str:
    """What a message says: its text, that of its parts, and which tools it calls."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    said = [
        str(part.get("text") or f"[{part.get('type')}]") if isinstance(part, dict) else str(part)
        for part in parts
        if part is not None
    ]
    made = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
    calls = [call.get("function") or call for call in made]
    said += [f"[calls {call.get('name')}({call.get('arguments', '')})]" for call in calls]
    return " ".join(said)


def _text(value: Any) -> str:
    """A column's text; of messages, what the last one says."""
    if _holds_messages(value):
        value = value[-1].get("content")
    return "" if value is None else str(value)


def _holds_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[-1], Mapping)
