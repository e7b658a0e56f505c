"""Which base models are resident, and how does a run get a model of its own over shared weights?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from accelerate.hooks import remove_hook_from_submodules
from huggingface_hub import HfApi, is_offline_mode, try_to_load_from_cache
from torch import nn

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.foreground import is_cell_at_work
from rf_notebook.core.redaction import redact
from rf_notebook.core.values import Json, digest
from rf_notebook.planning.memory_plan import gibibytes
from rf_notebook.store.folders import refusal_of_disk
from rf_notebook.training import memory
from rf_notebook.training.device import run_device, run_devices
from rf_notebook.training.memory_estimate import model_without_weights
from rf_notebook.training.per_thread import loading_alone
from rf_notebook.training.process_state import isolated
from rf_notebook.training.quiet import no_progress_bars
from rf_notebook.training.stages import spread, stage_map
from rf_notebook.training.undisturbed import (
    Disturbed,
    Drawn,
    OwnDtype,
    OwnStream,
    until_undisturbed,
)

ModuleT = TypeVar("ModuleT", bound=nn.Module)

#: Values of ``device_map`` that let accelerate choose among all devices.
_MAPS_THAT_CHOOSE = ("auto", "balanced", "balanced_low_0", "sequential")
#: For the hub's answer whether there is a model.
_HUB_SECONDS = 10.0
#: trl's own, of every config that sets none.
_HEAD_SEED = 42
#: What a user's create_model_fn gets and gives.
CreateModel = Callable[[dict[str, Any]], tuple[Any, Any]]


def tree_clone(base: ModuleT) -> ModuleT:
    """A new module tree over the same storage.

    Hooks, flags, sub-modules and Parameter objects are its own.

    A Parameter of the clone is an alias of the base's: freezing it or giving it other data touches
    nobody else; only writing into it in place would (see ``tree_copy``). What quantised parameters
    carry besides their data (scales, code books) is shared as well.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in base.buffers()}
    for tensor in base.parameters():
        shared[id(tensor)] = _alias(tensor, shared)
    return copy.deepcopy(base, shared)


def _alias(parameter: nn.Parameter, shared: dict[int, Any]) -> nn.Parameter:
    """Another Parameter over the same storage; of a quantised one with the same attributes."""
    if type(parameter) is nn.Parameter:
        return nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
    # torch's only way to make a tensor over given data
    make = torch.Tensor._make_subclass  # noqa: SLF001
    alias: Any = make(type(parameter), parameter.data, parameter.requires_grad)
    alias.__dict__.update(parameter.__dict__)
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        # A holder of its own over the same tensors, for bitsandbytes packs weights again on some
        # CPUs and marks it there; the layer holds it, too.
        alias.quant_state = shared[id(state)] = copy.copy(state)
    return alias


def tree_copy(base: ModuleT) -> tuple[ModuleT, Callable[[], None]]:
    """A model whose weights may be changed, and a function that shares the unchanged ones again.

    For adapters whose initialisation takes a part out of the base weights (PiSSA, OLoRA, LoftQ,
    ...): build the adapter on the copy, then call the function, and the run keeps only the weights
    that its initialisation changed.
    """
    own = copy.deepcopy(base)
    pairs = list(zip(own.parameters(), base.parameters(), strict=True))

    def share_unchanged() -> None:
        for mine, shared in pairs:
            if mine.shape == shared.shape and torch.equal(mine.data, shared.data):
                mine.data = shared.data

    return own, share_unchanged


def changes_base_weights(init_lora_weights: object) -> bool:
    """Whether this way of initialising an adapter writes into the weights below it."""
    return isinstance(init_lora_weights, str) and init_lora_weights not in (
        "gaussian",
        "orthogonal",
    )


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A resident model that no trainer ever touched, and its tokenizer."""

    model: Any
    tokenizer: Any
    tokenizer_copies: dict[str, Any]

    def tokenizer_for(self, settings: Json) -> Any:
        """A tokenizer for runs whose ``settings`` change it in the same way.

        trl sets padding, end token and chat template.

        Runs with equal settings share one copy: copying a large vocabulary takes up to a second.
        """
        key = digest(settings)
        held = self.tokenizer_copies.get(key)
        if held is None or len(held) != len(
            self.tokenizer
        ):  # a trainer added tokens: that copy is its run's own
            held = self.tokenizer_copies[key] = copy.deepcopy(self.tokenizer)
        return held


class BaseModels:
    """Loads each distinct base model once, on first need."""

    def __init__(self, create_model: CreateModel | None) -> None:
        self._create_model = create_model
        self._place = Path.cwd()
        self._dtype = torch.get_default_dtype()
        self._dtypes: tuple[str, ...] = ()
        """Of the weights that were loaded last."""
        self.loaded: dict[str, BaseModel] = {}
        self.loaded_rewards: dict[str, Any] = {}
        self.on_use: Callable[[Any], None] = lambda _model: None
        """Called with each model that is asked for, before it is handed out."""

    def get(self, model_config: Mapping[str, Json], *, use_cpu: bool) -> BaseModel:
        """The base model that this part of a config chooses.

        Raises:
            ConfigError: when the loader gives something else than a model and a tokenizer.
        """
        devices = run_devices(use_cpu=use_cpu)
        key = f"{devices[0]}:{_in_order(model_config)!r}"
        if key not in self.loaded:
            self.loaded[key] = until_undisturbed(
                lambda: self._load_undisturbed(dict(model_config), devices)
            )
        self.on_use(self.loaded[key].model)
        return self.loaded[key]

    def reward_model(self, name: str, *, use_cpu: bool) -> Any:
        """The model of this name that gives a completion its reward; loaded as trl loads it."""
        device = run_device(use_cpu=use_cpu)
        key = f"{device}:{name}"
        if key not in self.loaded_rewards:
            # Weights that the model lacks are drawn as trl would draw them.
            with isolated(streams=lambda: False), no_progress_bars(), OwnStream.like_process():
                found = self.located(name)
                model = transformers.AutoModelForSequenceClassification.from_pretrained(
                    found, num_labels=1
                )
                self.loaded_rewards[key] = model.to(device)
        self.on_use(self.loaded_rewards[key])
        return self.loaded_rewards[key]

    def located(self, name: Any) -> Any:
        """A name that is a path, as it was seen from where the experiment was launched.

        Others as they are.
        """
        if not isinstance(name, str) or (
            self._create_model is not None and Path.cwd() == self._place
        ):
            return name  # the user's loader gets what the user typed
        return str(self._place / name) if (self._place / name).exists() else name

    def modules(self) -> list[Any]:
        """All that are resident."""
        return [*(base.model for base in self.loaded.values()), *self.loaded_rewards.values()]

    def clear(self) -> None:
        """Let all models go."""
        self.loaded.clear()
        self.loaded_rewards.clear()

    def _load_undisturbed(
        self, model_config: dict[str, Any], devices: Sequence[torch.device]
    ) -> BaseModel:
        """Of a user's loader the process's streams are its own to draw from and to seed.

        The hub's gets a copy of them.
        """
        own, drawn = OwnDtype(self._dtype), Drawn()
        stream: Any = OwnStream.like_process() if self._create_model is None else drawn
        with (
            isolated(streams=lambda: drawn.has_drawn or not is_cell_at_work()),
            no_progress_bars(),
            loading_alone(lambda dtype: OwnDtype(dtype, within=self._dtype)),
            own,
            stream,
        ):
            loaded = self._load(model_config, devices)
        dtypes = tuple(
            str(weight.dtype) for weight in loaded.model.parameters() if weight.is_floating_point()
        )
        is_known, self._dtypes = dtypes == self._dtypes, dtypes
        if (
            own.others and not is_known
        ):  # what asks torch for the default dtype itself may have got another cell's
            raise Disturbed("another cell changed torch's default dtype")
        return loaded

    def _load(self, model_config: dict[str, Any], devices: Sequence[torch.device]) -> BaseModel:
        model_config |= {
            name: self.located(model_config.get(name)) for name in ("model_name", "tokenizer")
        }
        if self._create_model is None:
            given: Any = load_from_hub(_placed(model_config, devices))
        else:
            given = self._create_model(model_config)
        if not (isinstance(given, tuple) and len(given) == 2):
            raise ConfigError(
                f"create_model_fn returned {type(given).__name__}; it must return a tuple (model, tokenizer)."
            )
        model, tokenizer = given
        if not isinstance(model, nn.Module) or hasattr(model, "peft_config"):
            raise ConfigError(
                f"create_model_fn returned a {type(model).__name__} as model; it must return the plain base model, "
                "without an adapter: each run adds its own."
            )
        if tokenizer is None:
            raise ConfigError(
                "create_model_fn returned no tokenizer; it must return a tuple (model, tokenizer)."
            )
        is_spread = len(devices) > 1
        placed = spread(model, devices) if is_spread else _on_one_device(model, devices[0])
        return BaseModel(placed, tokenizer, {})


def _in_order(value: Any) -> Any:
    """A value whose repr does not depend on the order in which dicts were filled."""
    if isinstance(value, Mapping):
        return sorted(
            ((repr(key), _in_order(item)) for key, item in value.items()), key=lambda pair: pair[0]
        )
    return [_in_order(item) for item in value] if isinstance(value, list | tuple) else value


def load_from_hub(model_config: dict[str, Any]) -> tuple[Any, Any]:
    """The loader used when ``run_fit`` gets none: the hub's auto classes, by model_type."""
    name = model_config["model_name"]
    kwargs = dict(model_config.get("model_kwargs") or {})
    with _named("base model", name, kwargs):
        if model_config.get("model_type") == "sequence_classification":
            model = _with_head(name, kwargs)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(name, **kwargs)
    tokenizer, given = (
        model_config.get("tokenizer") or name,
        dict(model_config.get("tokenizer_kwargs") or {}),
    )
    with _named("tokenizer", tokenizer, kwargs | given):
        return model, transformers.AutoTokenizer.from_pretrained(tokenizer, **given)


def _with_head(name: str, kwargs: Mapping[str, Any]) -> Any:
    """A model with a head of one output, in every process with the same one.

    It is drawn as trl draws it with its usual seed.
    """
    with OwnStream(_HEAD_SEED):
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            name, **{"num_labels": 1, **kwargs}
        )


@contextmanager
def _named(what: str, name: str, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Say which model it was that could not be loaded, and ask the hub once whether it is there.

    The libraries ask for file after file, each several times with growing pauses: a misspelt name
    took 100 s offline.

    Raises:
        ConfigError: when it is neither on this machine nor on the hub.
    """
    if not Path(name).exists() and not is_offline_mode() and not _is_cached(name, kwargs):
        try:
            HfApi().model_info(
                name,
                revision=kwargs.get("revision"),
                timeout=_HUB_SECONDS,
                token=kwargs.get("token"),
            )
        except Exception as error:
            raise _not_there(what, name, error) from error
    try:
        yield
    except OSError as error:
        if refusal_of_disk(error) is not None:
            raise
        raise _not_there(what, name, error) from error


def _is_cached(name: str, kwargs: Mapping[str, Any]) -> bool:
    files = ("config.json", "tokenizer_config.json")
    where = {"cache_dir": kwargs.get("cache_dir"), "revision": kwargs.get("revision")}
    return any(isinstance(try_to_load_from_cache(name, file, **where), str) for file in files)


def _not_there(what: str, name: str, error: Exception) -> ConfigError:
    told = redact(" ".join(str(error).split()))[:200]
    return ConfigError(
        f"the {what} {name!r} cannot be loaded: it is not a folder on this machine and the hub does not give it "
        f"({type(error).__name__}: {told}). Check the name, the connection, and for a gated model the token."
    )


def _placed(model_config: dict[str, Any], devices: Sequence[torch.device]) -> dict[str, Any]:
    """The config with the run's devices in place of a ``device_map`` such as "auto"."""
    kwargs = dict(model_config.get("model_kwargs") or {})
    is_on_gpus, chooses = devices[0].type == "cuda", kwargs.get("device_map") in _MAPS_THAT_CHOOSE
    if is_on_gpus and len(devices) > 1:
        # a model that is not described here is divided by accelerate
        described = model_without_weights(model_config)
        kwargs["device_map"] = "balanced" if described is None else stage_map(described, devices)
        kwargs.pop("max_memory", None)  # says how to spread
    elif is_on_gpus and chooses:
        kwargs["device_map"] = {"": devices[0].index}
        kwargs.pop("max_memory", None)
    return {**model_config, "model_kwargs": kwargs}


def _on_one_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as a plain module on one device.

    ``device_map="auto"`` spreads a model over all GPUs that are visible, and leaves hooks that move
    tensors and a map that makes Trainer believe in model parallelism; on one device both are
    redundant.

    Raises:
        ConfigError: when the model does not fit there.
    """
    device_map = getattr(model, "hf_device_map", None)
    quantised = getattr(model, "is_loaded_in_8bit", False) or getattr(
        model, "is_loaded_in_4bit", False
    )
    is_spread = False
    if device_map is not None:
        places = {str(place) for place in device_map.values()}
        if places & {"disk", "meta"} or (len(places) > 1 and "cpu" in places):
            raise ConfigError(
                f"the base model was spread over {', '.join(sorted(places))}, so it does not fit on {device}. "
                "Use a smaller or quantised model, or spread it over several GPUs with RFModelConfig(num_gpus=2)."
            )
        is_spread = len(places) > 1
        remove_hook_from_submodules(model)
        for name in ("to", "cuda", "npu", "xpu"):
            model.__dict__.pop(
                name, None
            )  # accelerate's wrappers move this very tree, also when a clone is meant
        del model.hf_device_map
    if quantised and not is_spread:
        return model
    try:
        return model.to(device)
    except torch.cuda.OutOfMemoryError as error:
        raise does_not_fit(
            device, sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
        ) from error
    except ValueError as error:  # transformers cannot move every kind of quantised model
        raise ConfigError(
            f"the base model was spread over several devices and cannot be moved to {device}: {error} "
            f"Load it with device_map={{'': {device.index or 0}}}."
        ) from error


def does_not_fit(device: torch.device, needed: int | None = None) -> ConfigError:
    """The sentence for a model that is larger than the device of the runs."""
    free = memory.free_bytes(device)
    size = "" if needed is None else f" of {gibibytes(needed)} GiB"
    return ConfigError(
        f"the base model{size} does not fit on {torch.cuda.get_device_name(device)} ({device}), which has "
        f"{gibibytes(free)} GiB free. Use a smaller or quantised model, or spread it over several GPUs with "
        "RFModelConfig(num_gpus=2)."
    )
