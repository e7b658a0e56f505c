"""Which values of an argument does a search try?"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import brief

Number = int | float

_MOST_STEPS = 100_000


class List:
    """A choice among values: a grid search tries each, a random search draws one.

    Args:
        values: The values, of any type; configs, functions and further ``List`` or ``Range``
            included.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        if not isinstance(values, list | tuple):
            raise ConfigError(
                f"List takes a list of values, not {type(values).__name__}: {brief(values)}."
            )
        if not values:
            raise ConfigError("List has no values; give at least one.")
        self.values = list(values)

    def sample(self, rng: random.Random | None = None) -> Any:
        """One of the values."""
        return (rng or random.Random()).choice(self.values)

    def copy(self) -> List:
        """A new List of copies of the configs among the values."""
        return List(
            [
                value.copy() if hasattr(value, "copy") and not callable(value) else value
                for value in self.values
            ]
        )

    def __repr__(self) -> str:
        return f"List({self.values!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, List) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]


class Range:
    """Numbers between two bounds, both included, for a random search.

    With ``step`` or ``sample_n`` also for a grid.

    Args:
        start: Lower bound.
        end: Upper bound.
        dtype: "int" or "float"; follows from the bounds when omitted.
        log: Draw evenly in the logarithm; needs bounds above 0.
        step: Draw only ``start``, ``start + step``, ...; excludes ``log``.
        sample_n: How many numbers a grid search draws from the range and tries.
        seed: Of those draws, and of ``sample()``.
    """

    def __init__(
        self,
        start: Number,
        end: Number,
        dtype: str | None = None,
        log: bool = False,
        step: Number | None = None,
        sample_n: int | None = None,
        seed: int | None = None,
    ) -> None:
        for name, bound in (("start", start), ("end", end), ("step", step)):
            if name == "step" and bound is None:
                continue
            if (
                isinstance(bound, bool)
                or not isinstance(bound, int | float)
                or not math.isfinite(bound)
            ):
                raise ConfigError(f"Range {name}={brief(bound)} is not a finite number.")
        if dtype not in (None, "int", "float"):
            raise ConfigError(f"Range dtype={dtype!r} does not exist; use 'int' or 'float'.")
        if start > end:
            raise ConfigError(f"Range start={start} lies above end={end}; swap them.")
        if log and start <= 0:
            raise ConfigError(
                f"Range start={start} cannot be drawn in the logarithm; with log=True start must exceed 0."
            )
        if log and step is not None:
            raise ConfigError(f"Range takes log=True or step={step}, not both.")
        if step is not None and step <= 0:
            raise ConfigError(f"Range step={step} must be above 0.")
        self.dtype = dtype or (
            "int" if isinstance(start, int) and isinstance(end, int) else "float"
        )
        if self.dtype == "int" and any(float(b) != int(b) for b in (start, end, step or 1)):
            raise ConfigError(f"Range({start}, {end}) with dtype='int' needs whole numbers.")
        for name, whole, least in (("sample_n", sample_n, 1), ("seed", seed, 0)):
            if whole is not None and (
                isinstance(whole, bool) or not isinstance(whole, int) or whole < least
            ):
                raise ConfigError(
                    f"Range {name}={brief(whole)} is not a whole number of at least {least}."
                )
        self.start, self.end, self.log, self.step = start, end, log, step
        self.sample_n, self.seed = sample_n, seed
        self._rng = random.Random(seed)

    def sample(self, rng: random.Random | None = None) -> Number:
        """One number of the range.

        With a ``seed``, the same numbers one after the other in every process.
        """
        rng = rng or self._rng
        if self.step is not None:
            return rng.choice(self.steps())
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.start), math.log(self.end)))
            drawn = min(max(drawn, self.start), self.end)
            return round(drawn) if self.dtype == "int" else drawn
        if self.dtype == "int":
            return rng.randint(int(self.start), int(self.end))
        return rng.uniform(self.start, self.end)

    def tried(self) -> list[Number]:
        """The numbers that a grid search tries.

        Raises:
            ConfigError: without a step and without sample_n.
        """
        if self.sample_n is not None:
            return self._drawn(self.sample_n)
        if self.step is None:
            raise ConfigError(
                f"{self!r} has no step, so a grid cannot try each of its values; "
                "give a step or sample_n, use List([...]), or use RFRandomSearch."
            )
        return self.steps()

    def _drawn(self, count: int) -> list[Number]:
        """Different numbers, always the same."""
        rng = random.Random(self.seed or 0)
        found: dict[Number, None] = {}
        for _ in range(count * 100):
            found[self.sample(rng)] = None
            if len(found) == count:
                return list(found)
        raise ConfigError(f"{self!r} has only {len(found)} different numbers; lower sample_n.")

    def steps(self) -> list[Number]:
        """All numbers of a range with a step.

        Raises:
            ConfigError: when they are more than any search tries.
        """
        assert self.step is not None
        if self.end - self.start > _MOST_STEPS * self.step:
            raise ConfigError(f"{self!r} has more than {_MOST_STEPS:,} steps; give a larger step.")
        count = math.floor((self.end - self.start) / self.step + 1e-9) + 1
        numbers = [self.start + i * self.step for i in range(count)]
        return [int(n) for n in numbers] if self.dtype == "int" else [float(n) for n in numbers]

    def copy(self) -> Range:
        """The same range."""
        return Range(
            self.start, self.end, self.dtype, self.log, self.step, self.sample_n, self.seed
        )

    def __repr__(self) -> str:
        more = ", log=True" if self.log else ""
        for name in ("step", "sample_n", "seed"):
            value = getattr(self, name)
            more += "" if value is None else f", {name}={value}"
        return f"Range({self.start}, {self.end}, dtype={self.dtype!r}{more})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Range) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]
