"""How are a run's reward functions called, and what do they give that cannot be trained on?

The latter is said with the function's name and the row.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import redact
from rf_notebook.training import awaiting
from rf_notebook.training.awaiting import RunStreams

#: What trl hands to every reward function for all rows together (trl 1.16); all else has one value
#: a row.
_SHARED = ("trainer_state", "log_extra", "log_metric", "environments")
_SHOWN = 60


class Rewards:
    """The reward functions of one run.

    Async functions are awaited here, all of one batch at once: trl would start a thread with an
    event loop that nobody stops. Between two looks at them other runs continue. Functions that are
    not async hold up the others.
    """

    def __init__(self) -> None:
        """There are none yet."""
        self._seconds: defaultdict[str, float] = defaultdict(float)
        """Of the batch in progress, by function."""
        self._async: list[Callable[..., Any]] = []
        self._streams: RunStreams
        self._tasks: list[asyncio.Task[Any]] = []
        """Of the batch in progress, one for each async function."""
        self.let_others: Callable[[], float] | None = None
        """Lets other runs continue, and returns how many seconds may be waited then; None where
        there are none."""

    def watched(self, reward: Any) -> Any:
        """A function whose result is checked before trl takes it; models as they are.

        A ``None`` among the rewards is left to trl, which takes it as "this function says nothing
        about this row".
        """
        if isinstance(reward, nn.Module):
            return reward
        name, number = reward_name(reward), None
        if _is_async(reward):
            number = len(self._async)
            self._async.append(reward)

        def checked(
            prompts: list[Any], completions: list[Any], **columns: Any
        ) -> list[float | None]:
            given = {"prompts": prompts, "completions": completions, **columns}
            try:
                if number is None:
                    rewards = self._called(name, reward, given)
                else:
                    rewards = self._awaited(number, given)
            except Exception as error:
                where = _culprit(reward, prompts, completions, columns)
                raise ConfigError(
                    f"the reward function {name!r} raised {type(error).__name__}: {redact(str(error))}, {where}."
                ) from error
            return _checked(name, rewards, prompts)

        checked.__name__ = name
        return checked

    def end_batch(self) -> dict[str, float]:
        """Cancel what is still being awaited; returns the seconds that each function took."""
        tasks, self._tasks = self._tasks, []
        awaiting.cancel([task for task in tasks if not task.done()])
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds

    def _called(self, name: str, reward: Callable[..., Any], given: dict[str, Any]) -> Any:
        began = time.perf_counter()
        try:
            return _call(reward, **given)
        finally:
            self._seconds[name] += time.perf_counter() - began

    def _awaited(self, number: int, given: dict[str, Any]) -> Any:
        if not self._tasks:  # the first of a batch: trl gives the same to all
            self._streams = RunStreams()
            for one in self._async:
                self._tasks.append(self._begin(one, given))
        task, seconds = self._tasks[number], 0.0
        self._streams.take()
        while not task.done():
            awaiting.look(task, None if self.let_others is None else seconds)
            if self.let_others is not None and not task.done():
                seconds = self.let_others()
        self._streams.give()
        return task.result()

    def _begin(self, reward: Callable[..., Any], given: dict[str, Any]) -> asyncio.Task[Any]:
        name, began = reward_name(reward), time.perf_counter()

        def over(_task: object) -> None:
            self._seconds[name] += time.perf_counter() - began

        task = awaiting.begin(reward(**given), self._streams)
        task.add_done_callback(over)
        return task


def _is_async(reward: Any) -> bool:
    """Also of an object with an async ``__call__``."""
    while isinstance(reward, functools.partial):
        reward = reward.func
    called = getattr(reward, "__call__", None)  # noqa: B004 - not whether, but which
    return inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(called)


def check_rewards(funcs: Sequence[Any]) -> None:
    """Refuse reward functions that trl could not call.

    Raises:
        ConfigError: naming the function.
    """
    for reward in funcs:
        if isinstance(reward, str | nn.Module):
            continue
        try:
            signature = inspect.signature(reward)
        except (TypeError, ValueError):
            continue  # a built-in without a signature
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            raise ConfigError(
                f"the reward function {reward_name(reward)!r} has the signature {signature}; trl calls it with prompts=, "
                "completions=, completion_ids= and every column of the data, so give it **kwargs."
            )


def reward_name(reward: Any) -> str:
    """The name of a reward function, or of the model that gives rewards."""
    while isinstance(reward, functools.partial):
        reward = reward.func
    return (
        reward
        if isinstance(reward, str)
        else str(getattr(reward, "__name__", type(reward).__name__))
    )


def _call(reward: Callable[..., Any], **given: Any) -> Any:
    made = reward(**given)
    return awaiting.result_of(made) if inspect.isawaitable(made) else made


def _checked(name: str, rewards: Any, prompts: Sequence[Any]) -> list[float | None]:
    """The rewards as numbers.

    Raises:
        ConfigError: for anything else than one finite number (or None) a completion.
    """
    expected = f"it must return a list of {len(prompts)} numbers, one for each completion"
    if rewards is None:
        raise ConfigError(f"the reward function {name!r} returned None; {expected}.")
    try:
        found = list(rewards)
    except TypeError:
        raise ConfigError(
            f"the reward function {name!r} returned a {type(rewards).__name__}; {expected}."
        ) from None
    if len(found) != len(prompts):
        raise ConfigError(
            f"the reward function {name!r} returned {len(found)} rewards; {expected}."
        )
    checked: list[float | None] = []
    for row, reward in enumerate(found):
        if reward is None:
            checked.append(None)
            continue
        try:
            number = float(reward)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(
                f"the reward function {name!r} returned {reward!r:.80} {_row(row, prompts[row])}; a reward is a finite number."
            )
        checked.append(number)
    return checked


def unscored(names: Sequence[str], row: int, prompt: Any) -> ConfigError:
    """The refusal of a completion about which no function says anything."""
    listed = " and ".join(map(repr, names))
    return ConfigError(
        f"the reward function {listed} returned None {_row(row, prompt)}; at least one must give a number."
    )


def _culprit(
    reward: Callable[..., Any], prompts: list[Any], completions: list[Any], columns: dict[str, Any]
) -> str:
    """Where it happens: the first row that fails alone."""
    for row, prompt in enumerate(prompts):
        alone = {
            k: v if k in _SHARED or not isinstance(v, list) else [v[row]]
            for k, v in columns.items()
        }
        try:
            _call(reward, prompts=[prompt], completions=[completions[row]], **alone)
        except Exception:  # noqa: BLE001 - whatever it raises, this is the row
            return _row(row, prompt)
    return f"for a batch of {len(prompts)} completions, though for none of them alone"


def _row(row: int, prompt: Any) -> str:
    text = prompt if isinstance(prompt, str) else prompt[-1].get("content") if prompt else ""
    shown = redact(str(text))
    return f"for completion {row + 1} of its batch, to the prompt {shown[:_SHOWN] + ('...' if len(shown) > _SHOWN else '')!r}"
