"""Where do an experiment's figures go, besides its own record? One file a library.

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig

Adding one is a file here, a line below and a test.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig

#: By the name in ``track=``: what a user calls it, and the package that it needs. The module of that
#: name here has a class ``Shown`` that writes to it.
TRACKERS = {
    "tensorboard": ("TensorBoard", "tensorboard"),
    "wandb": ("Weights & Biases", "wandb"),
    "trackio": ("Trackio", "trackio"),
}
#: What ``track`` may name.
NAMES = ("mlflow", *TRACKERS)


def track_argument(given: Any) -> tuple[str, ...] | None:
    """What ``run_fit(track=...)`` names; None when it is left to the configs.

    Raises:
        ConfigError: for what is no list of trackers, or a tracker whose library is missing.
    """
    if given is None:
        return None
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"run_fit(track={given!r:.80}): give a list of trackers, as in track=['mlflow', 'wandb']."
        )
    for name in names:
        if name not in NAMES:
            known = ", ".join(map(repr, NAMES))
            raise ConfigError(
                f"run_fit(track={given!r:.80}): there is no tracker {name!r}; there are {known}."
            )
    _check_installed(names)
    return tuple(dict.fromkeys(names))


def trackers_of(configs: Iterable[RunConfig]) -> tuple[tuple[str, ...], list[str]]:
    """The trackers when ``track`` names none.

    They are MLflow, those in the configs' ``report_to``, and those that RapidFire AI's variables
    switch on. Returns also what a user should know of them.

    Raises:
        ConfigError: for a tracker whose library is missing.
    """
    given = [config.training.get("report_to") for config in configs]
    named = dict.fromkeys(
        str(name) for one in given for name in (one if isinstance(one, list) else [one]) if name
    )
    backend, wanted = os.environ.get("RF_TRACKING_BACKEND", "").lower(), dict.fromkeys(named)
    for name in ("tensorboard", "trackio"):
        if _is_on(name) or backend == name or (name == "tensorboard" and backend == "both"):
            wanted[name] = None
    found = [name for name in wanted if name in TRACKERS]
    _check_installed(found)
    told = []
    unused = [name for name in named if name not in ("none", "all", *NAMES)]
    if unused:
        told.append(
            f"report_to={' and '.join(map(repr, unused))} has no effect: figures go to the panel, the experiment's record and "
            f"{' and '.join(['MLflow', *(TRACKERS[name][0] for name in found)])}. Nothing else is written or sent."
        )
    if "all" in named:
        told.append(
            "report_to='all' has no effect; name the trackers, as in run_fit(track=['mlflow', 'wandb'])."
        )
    has_mlflow = _is_on("mlflow") is not False or "mlflow" in named
    return (*(("mlflow",) if has_mlflow else ()), *found), told


def _is_on(tracker: str) -> bool | None:
    """What RapidFire AI's variable says of it, RF_TENSORBOARD_ENABLED say; None: nothing."""
    said = os.environ.get(f"RF_{tracker.upper()}_ENABLED", "").lower()
    return {"true": True, "false": False}.get(said)


def _check_installed(names: Iterable[str]) -> None:
    for name in names:
        if name in TRACKERS and importlib.util.find_spec(TRACKERS[name][1]) is None:
            title, package = TRACKERS[name]
            raise ConfigError(
                f"{title} is to show the runs and {package} is not installed; pip install 'rf-notebook[{name}]'."
            )
