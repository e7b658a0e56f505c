"""Which metrics does a run log, which one says how good it is, and which way is better?

The names are those of trl's trainers; a test compares them with what the installed trl logs.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import RunConfig
from rf_notebook.core.values import Json

#: By method, the metric that says how good a run is; its evaluation, "eval_...", counts before
#: training's.
HEADLINES = {
    "SFT": "loss",
    "DPO": "rewards/accuracies",
    "KTO": "loss",
    "GRPO": "reward",
    "RLOO": "reward",
    "Reward": "accuracy",
}
#: Methods that have several losses, each on a scale of its own.
_OF_MANY_LOSSES = ("DPO", "KTO")
#: Figures of the clock, no property of a config.
_CLOCK = ("_runtime", "_per_second", "_model_preparation_time", "step_time")
#: What is known of a run's speed and cost beside what it logs: ``results.speed.speed_of``.
SPEEDS = (
    *("tokens_per_second", "samples_per_second", "train_seconds", "eval_seconds"),
    *("generated_tokens_per_second", "first_token_seconds"),
)
_LOSSES = ("loss", "eval_loss", "train_loss")
_MINIMIZED = ("loss", "perplexity", "error", "entropy", "kl", "norm", "_seconds")

#: Logged in training only.
_TRAINING_ONLY = ("grad_norm", "learning_rate", "train_loss", "total_flos")
_GENERATED = (
    *("loss", "reward", "reward_std", "frac_reward_zero_std", "entropy", "kl", "num_tokens"),
    *("aux_loss", "rewards/*/mean", "rewards/*/std", "completions/*", "clip_ratio/*"),
)
_BOTH = {
    "SFT": ("loss", "entropy", "mean_token_accuracy", "num_tokens", "aux_loss"),
    "DPO": (
        *("loss", "entropy", "mean_token_accuracy", "num_tokens", "aux_loss"),
        *("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected"),
        *("logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected"),
    ),
    "KTO": (
        *("loss", "entropy", "kl", "num_tokens", "aux_loss"),
        *("rewards/margins", "rewards/chosen", "rewards/rejected"),
        *("logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected"),
    ),
    "GRPO": (
        *_GENERATED,
        *("policy_loss", "entropy_coef", "cispo_clip_ratio", "sampling/*", "tools/*", "vespo/*"),
    ),
    "RLOO": _GENERATED,
    "Reward": (
        *("loss", "accuracy", "margin", "mean_reward", "min_reward", "max_reward", "num_tokens"),
    ),
}


def direction(metric: str) -> str:
    """Whether less or more of a metric is better: "min" or "max"."""
    return "min" if any(word in metric for word in _MINIMIZED) else "max"


def headline(methods: Collection[str], logged: Collection[str]) -> str:
    """The metric that says how good runs of these methods are.

    Several methods of different kinds have only a loss in common.

    Args:
        methods: As in ``RunConfig.method``.
        logged: Names that there are; the evaluation's counts as soon as it is among them.
    """
    names = {HEADLINES.get(one, "loss") for one in methods}
    name = names.pop() if len(names) == 1 else "loss"
    return f"eval_{name}" if f"eval_{name}" in logged else name


def judged_by(method: str, metric: str, logged: Collection[str]) -> str:
    """By what a run is judged when ``metric`` is looked at.

    The loss of methods with rewards does not say how good a run is.
    """
    is_judged_by_reward = HEADLINES.get(method) == "reward"
    return headline([method], logged) if is_judged_by_reward and metric in _LOSSES else metric


def scale_of(config: RunConfig, metric: str) -> str:
    """On which scale a run's metric lies: runs with equal ones can be compared.

    A loss means something else in each method, and in some with each kind of loss.
    """
    if metric.rpartition("/")[2] not in _LOSSES:
        return ""
    kinds = config.training.get("loss_type")
    if config.method not in _OF_MANY_LOSSES or kinds is None:
        return config.method
    return f"{config.method} {' + '.join(map(str, kinds)) if isinstance(kinds, list) else kinds}"


def known_metrics(config: RunConfig, *, evaluates: bool) -> list[str]:
    """Names that a run of this config will log; a ``*`` stands for a part that is known later.

    Args:
        config: The run's config.
        evaluates: Whether there is evaluation data.
    """
    both = [
        name.replace("rewards/*/", f"rewards/{one}/")
        for name in _BOTH[config.method]
        for one in _rewards(config)
    ]
    names = [f"eval_{name}" for name in dict.fromkeys(both)] if evaluates else []
    return [*names, *dict.fromkeys(both), *_TRAINING_ONLY]


def may_log(config: RunConfig, metric: str, *, evaluates: bool, sources: Mapping[str, str]) -> bool:
    """Whether a run can log a metric: one of trl's, or one of the user's own functions.

    Args:
        config: The run's config.
        metric: Its name.
        evaluates: Whether there is evaluation data.
        sources: Sources of functions that configs refer to, by name.
    """
    if config.method not in _BOTH or metric in SPEEDS:
        return True
    if any(
        fnmatch.fnmatchcase(metric, name) for name in known_metrics(config, evaluates=evaluates)
    ):
        return True
    computes = evaluates and config.extras.get("compute_metrics") is not None
    if computes and (
        metric.startswith("eval_") or config.extras.get("generation_config") is not None
    ):
        return True
    # trl hands reward functions a ``log_metric`` with which they log what they like.
    code = [sources.get(name) for name in _objects(config.extras.get("reward_funcs"))]
    return any(source is None or "log_metric" in source for source in code)


def check_metric(
    owner: str,
    metric: str,
    configs: Collection[RunConfig],
    *,
    evaluates: bool,
    sources: Mapping[str, str],
    logged: Collection[str] = (),
) -> None:
    """Refuse a metric that no run will log.

    Args:
        owner: Who decides by it.
        metric: Its name.
        configs: The runs' configs.
        evaluates: Whether there is evaluation data.
        sources: Sources of the functions that configs refer to, by name.
        logged: Names that were logged already.

    Raises:
        ConfigError: naming the metrics that there will be.
    """
    if metric in logged or any(
        may_log(c, metric, evaluates=evaluates, sources=sources) for c in configs
    ):
        return
    if not evaluates and any(
        may_log(config, metric, evaluates=True, sources=sources) for config in configs
    ):
        raise ConfigError(
            f"{owner} decides by {metric!r} but run_fit has no eval_dataset; give one, or decide by another metric."
        )
    names = list(
        dict.fromkeys(name for one in configs for name in known_metrics(one, evaluates=evaluates))
    )
    near = difflib.get_close_matches(metric, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(name for name in names if "*" not in name)
    raise ConfigError(
        f"{owner} decides by {metric!r}, which no run will log; {hint}There will be: {listed}."
    )


def _rewards(config: RunConfig) -> list[str]:
    """Names of reward functions as trl writes them."""
    given = config.extras.get("reward_funcs")
    listed = given if isinstance(given, list) else [given]
    models = [one.rpartition("/")[2] for one in listed if isinstance(one, str)]
    functions = [name.partition("@")[0].rpartition(".")[2] for name in _objects(given)]
    is_plain = all(
        name.isidentifier() for name in functions
    )  # of partials and objects trl makes names of its own
    return [*models, *functions] if is_plain and (models or functions) else ["*"]


def _objects(value: Json) -> Iterable[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and "$object" in one:
            yield str(one["$object"])


def cost_of(value: float | None, mode: str) -> float:
    """A value as a cost, of which less is better; NaN, infinite and missing ones cost most."""
    if value is None or not math.isfinite(value):
        return math.inf
    return value if mode == "min" else -value


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs are nowhere higher than others and somewhere lower.

    The others are off the Pareto front.
    """
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(
        a < b for a, b in zip(one, other, strict=True)
    )


def numbers_of(logged: Mapping[str, Any]) -> dict[str, float]:
    """What a trainer logged, without texts, its step and the clock's figures."""
    return {
        name: float(value)
        for name, value in logged.items()
        if isinstance(value, int | float)
        and name not in ("step", "epoch")
        and not name.endswith(_CLOCK)
    }
