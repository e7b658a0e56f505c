"""Configs that Optuna suggests: the first ones at once, further ones while the experiment trains.

This file says which parameters a search has and what a trial means; ``automation/optuna_policy.py``
runs the study.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.picks import Chosen, Pick, Suggested, matches, picked
from rf_notebook.automl.search import MOST_CONFIGS, Search, has_choices
from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.objects import Objects

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects

    from rf_notebook.automl.configs import RFModelConfig
    from rf_notebook.automl.search_space import List
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.values import Json

#: Optuna's class by the name that a user gives.
_SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "nsgaii": "NSGAIISampler",
}
_PRUNERS = ("median",)
_GRANULARITIES = {"chunk": "chunk", "shard": "chunk", "epoch": "epoch"}
#: How many suggestions in a row may repeat a config before the search ends.
_ATTEMPTS = 30


class RFOptuna(Search):
    """Configs suggested by Optuna, which learns from the runs while they train.

    ``n_initial`` runs train at a time. One that does worse than the others is stopped at a chunk
    boundary (nothing of it is lost), and whenever a run is over, the next suggestion takes its
    place, until ``budget`` runs were tried. Each is an ordinary clone: recorded with its reason,
    replayed, undone by ``resume``. The study lies next to the experiment in ``optuna.db``, which
    Optuna's own tools open.

    Args:
        configs: One RFModelConfig, a list or a List of them, with List and Range where there is a
            choice.
        trainer_type: "SFT", "DPO", "KTO", "GRPO", "RLOO" or "Reward"; follows from the configs' training_args
            when omitted.
        n_initial: Runs that train at a time.
        budget: Runs that are tried in all; at least n_initial.
        objective: "minimize:METRIC" or "maximize:METRIC"; several with commas between them.
        sampler: "tpe", "random", "cmaes", "gp", "nsgaii", or one of Optuna's own objects.
        pruner: "median" (worse than the median of the others after equally many samples), None, or
            one of Optuna's own objects. With several objectives, runs that others beat in all of
            them are stopped instead, unless it is None.
        seed: Seed of the suggestions; it does not seed the training.
        granularity: "chunk" or "epoch": when runs are compared.
        build_all_indexes: RapidFire AI's, for searches over retrieval; there is none here.
    """

    def __init__(
        self,
        configs: RFModelConfig | List | list[RFModelConfig],
        trainer_type: str | None = None,
        n_initial: int = 16,
        budget: int = 40,
        objective: str = "minimize:eval_loss",
        sampler: Any = "tpe",
        pruner: Any = "median",
        seed: int = 42,
        granularity: str = "chunk",
        build_all_indexes: bool = False,
    ) -> None:
        if build_all_indexes:
            warnings.warn(
                "RFOptuna(build_all_indexes=True) has no effect: it is for searches over retrieval, and this one trains.",
                stacklevel=2,
            )
        for name, value, least in (
            ("n_initial", n_initial, 1),
            ("budget", budget, 1),
            ("seed", seed, 0),
        ):
            most = MOST_CONFIGS if name != "seed" else 2**32 - 1
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(
                    f"RFOptuna({name}={value!r}): {name} must be between {least} and {most}."
                )
        if granularity not in _GRANULARITIES:
            raise ConfigError(f"RFOptuna(granularity={granularity!r}): use 'chunk' or 'epoch'.")
        self.n_initial, self.budget, self.seed = n_initial, max(budget, n_initial), seed
        self.objective = objective
        self.objectives = _objectives(objective)
        """Metric and direction, "minimize" or "maximize", of each."""
        self.granularity = _GRANULARITIES[granularity]
        self.sampler = _checked(
            "sampler", sampler, tuple(_SAMPLERS), _optuna().samplers.BaseSampler
        )
        self.pruner = _checked("pruner", pruner, _PRUNERS, _optuna().pruners.BasePruner)
        self._kept: optuna.Study | None = None
        self.until_over: Callable[[], object] = lambda: None
        """Waits until the experiment that was launched with it has no more to train."""
        super().__init__(configs, trainer_type)
        if (
            not any(has_choices(template.given()) for template in self.templates())
            and len(self.templates()) < 2
        ):
            raise ConfigError(
                "RFOptuna has nothing to choose from: give an argument a List or a Range."
            )
        self.make_sampler()  # refuses one whose package is missing

    # ---- the study

    @property
    def study(self) -> optuna.Study:
        """Optuna's study, as it is now.

        Of a recorded experiment, ``optuna.load_study`` reads it from ``optuna.db``.

        Raises:
            ConfigError: before ``run_fit`` was called with this search.
        """
        if self._kept is None:
            raise ConfigError("RFOptuna has no study yet; call run_fit with it first.")
        return self._kept

    @property
    def _study(self) -> optuna.Study:
        """RapidFire AI's name of the study, which its notebooks read after ``run_fit``.

        So this waits.
        """
        self.until_over()
        return self.study

    def keep(self, study: optuna.Study) -> None:
        """Take the study of an experiment that trains."""
        self._kept = study

    def importances(self) -> plotly.graph_objects.Figure:
        """Which parameters decide: Optuna's figure."""
        return self._figure("plot_param_importances")

    def contour(self, params: Sequence[str] | None = None) -> plotly.graph_objects.Figure:
        """The objective over pairs of parameters: Optuna's figure."""
        return self._figure("plot_contour", params=params)

    def slice(self, params: Sequence[str] | None = None) -> plotly.graph_objects.Figure:
        """The objective over each parameter: Optuna's figure."""
        return self._figure("plot_slice", params=params)

    def _figure(self, name: str, **arguments: Any) -> plotly.graph_objects.Figure:
        from optuna import visualization

        target = {}
        if len(self.objectives) > 1:
            target = {"target": lambda trial: trial.values[0], "target_name": self.objectives[0][0]}
        elif name != "plot_param_importances":
            target = {"target_name": self.objectives[0][0]}
        return getattr(visualization, name)(self.study, **arguments, **target)

    def new_study(self) -> optuna.Study:
        """An empty one in memory."""
        return self._empty_study(self.make_sampler())

    def _empty_study(self, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        optuna = _optuna()
        storage = optuna.storages.InMemoryStorage()
        directions = [
            optuna.study.StudyDirection[direction.upper()] for _, direction in self.objectives
        ]
        pruner = (
            optuna.pruners.NopPruner()
            if isinstance(self.pruner, str | None)
            else copy.deepcopy(self.pruner)
        )
        with _silent("optuna.storages._in_memory"):
            storage.create_new_study(directions, "search")
            return optuna.Study("search", storage, sampler=sampler, pruner=pruner)

    def make_sampler(self) -> optuna.samplers.BaseSampler:
        """A sampler that has suggested nothing yet.

        Raises:
            ConfigError: when a package that it needs is missing.
        """
        if not isinstance(self.sampler, str):
            made: optuna.samplers.BaseSampler = copy.deepcopy(self.sampler)
            return made
        try:
            return getattr(_optuna().samplers, _SAMPLERS[self.sampler])(seed=self.seed)
        except ImportError as error:
            raise ConfigError(
                f"RFOptuna(sampler={self.sampler!r}) needs a package that is missing ({error.name}); install it, or use "
                "sampler='tpe'."
            ) from None

    def ask(
        self,
        study: optuna.Study,
        objects: Objects,
        seen: set[str],
        *,
        seed: int,
        data_seed: int | None,
    ) -> tuple[optuna.trial.Trial, RunConfig] | None:
        """The next suggestion whose config is new; None when there seems to be none.

        Args:
            study: Is asked; suggestions that there are already end as failed trials.
            objects: Takes what JSON cannot hold.
            seen: Digests of the configs that there are.
            seed: The training's seed, for configs that set none.
            data_seed: The experiment's seed of the data's order.
        """
        optuna = _optuna()
        for _ in range(_ATTEMPTS):
            trial = self._ask(study)
            config = self.config_of(Suggested(trial), objects, seed=seed, data_seed=data_seed)
            if config.digest() not in seen:
                return trial, config
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def _ask(self, study: optuna.Study) -> optuna.trial.Trial:
        """The next trial. TPE also learns from runs that still train.

        Optuna's own TPE looks at trials that ended. Here nearly all that is known is about runs
        that still train, and those are the good ones; so it is shown them as trials that were
        pruned where they stand.
        """
        optuna = _optuna()
        if not isinstance(study.sampler, optuna.samplers.TPESampler) or len(self.objectives) > 1:
            return study.ask()
        states = optuna.trial.TrialState
        shown = self._empty_study(study.sampler)
        for trial in study.get_trials(deepcopy=False):
            if trial.state is states.RUNNING and trial.intermediate_values:
                trial = optuna.trial.create_trial(
                    state=states.PRUNED,
                    params=trial.params,
                    distributions=trial.distributions,
                    intermediate_values=trial.intermediate_values,
                )
            if trial.state in (states.COMPLETE, states.PRUNED):
                shown.add_trial(trial)
        suggested = shown.ask()
        self.fields_of(Suggested(suggested))
        study.enqueue_trial(suggested.params)
        return study.ask()

    def enqueue(
        self,
        study: optuna.Study,
        config: RunConfig,
        objects: Objects,
        *,
        seed: int,
        data_seed: int | None,
    ) -> optuna.trial.Trial | None:
        """A trial for a config that somebody else chose.

        None when it lies outside of the search.
        """
        found = self.parameters_of(config, objects, seed=seed, data_seed=data_seed)
        if found is None:
            return None
        study.enqueue_trial(dict(found))
        trial = study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values at the edge of a range
            self.config_of(Suggested(trial), objects, seed=seed, data_seed=data_seed)
        return trial

    # ---- parameters and configs

    def config_of(
        self, pick: Pick, objects: Objects, *, seed: int, data_seed: int | None
    ) -> RunConfig:
        """The config that chosen parameters make."""
        return build_run_config(
            self.fields_of(pick), self.trainer_type, objects, seed=seed, data_seed=data_seed
        )

    def fields_of(self, pick: Pick) -> dict[str, Any]:
        """The fields of RFModelConfig that chosen parameters make."""
        templates = self.templates()
        if len(templates) == 1:
            fields: dict[str, Any] = picked(templates[0].given(), "", pick)
            return fields
        number = pick.among("configs", list(range(len(templates))))
        fields = picked(templates[number].given(), f"configs[{number}]", pick)
        return fields

    def parameters_of(
        self, config: RunConfig, objects: Objects, *, seed: int, data_seed: int | None
    ) -> Mapping[str, Any] | None:
        """The parameters that make a config; None when no choice of this search makes it."""
        given = config.as_json()
        templates = self.templates()
        for number, template in enumerate(templates):
            path = "" if len(templates) == 1 else f"configs[{number}]"
            found: dict[str, Any] = {} if len(templates) == 1 else {"configs": number}
            if not matches(template.given(), given, path, found, objects):
                continue
            made = self.config_of(Chosen(found), objects, seed=seed, data_seed=data_seed)
            if made.digest() == config.digest():
                return found
        return None

    # ---- as a search

    def _choices(self) -> Iterator[dict[str, Any]]:
        """The first suggestions; the policy's study begins with the very same."""
        study = self.new_study()
        objects, seen = Objects(), set[str]()
        made = []
        for _ in range(self.n_initial):
            asked = self.ask(study, objects, seen, seed=0, data_seed=None)
            if asked is None:
                break
            trial, config = asked
            seen.add(config.digest())
            made.append(self.fields_of(Chosen(trial.params)))
        return iter(made)

    def as_given(self, objects: Objects) -> dict[str, Json]:
        """See Search."""
        more: dict[str, Json] = {
            "n_initial": self.n_initial,
            "budget": self.budget,
            "objective": self.objective,
            "granularity": self.granularity,
        }
        for name in ("sampler", "pruner"):
            value = getattr(self, name)
            more[name] = value if isinstance(value, str | None) else type(value).__name__
        return {**super().as_given(objects), **more}

    def copy(self) -> RFOptuna:
        """An independent search."""
        return RFOptuna(
            self._copied_configs(),
            self.trainer_type,
            self.n_initial,
            self.budget,
            self.objective,
            self.sampler,
            self.pruner,
            self.seed,
            self.granularity,
        )


def _objectives(text: Any) -> list[tuple[str, str]]:
    found = []
    for one in text.split(",") if isinstance(text, str) else []:
        direction, _, metric = one.strip().partition(":")
        if direction in ("minimize", "maximize") and metric.strip():
            found.append((metric.strip(), direction))
    if not isinstance(text, str) or not found or len(found) != len(text.split(",")):
        raise ConfigError(
            f"RFOptuna(objective={text!r:.80}): write 'minimize:METRIC' or 'maximize:METRIC', several with commas between."
        )
    return found


def _checked(name: str, value: Any, known: tuple[str, ...], kind: type) -> Any:
    if isinstance(value, str):
        value = value.lower()
        if value in known:
            return value
        raise ConfigError(
            f"RFOptuna({name}={value!r}): there is no such {name}; {did_you_mean(value, known)}"
        )
    if isinstance(value, kind) or (value is None and name == "pruner"):
        return value
    raise ConfigError(
        f"RFOptuna({name}=...) is a {type(value).__name__}; give a name or an object of optuna's."
    )


def _optuna() -> Any:
    """Imported when a search needs it."""
    import optuna

    return optuna


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Optuna tells of each study that it makes; which was not asked for."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
