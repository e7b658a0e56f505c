"""How do a config's chosen values become the RunConfig of one run, and how is one edited?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rf_notebook.automl.adapter_configs import AdapterConfig, RFLoraConfig, adapter_config_of
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS, ArgumentsConfig, TrainingConfig
from rf_notebook.automl.search_space import List, Range
from rf_notebook.automl.validation import unknown_argument
from rf_notebook.core.encoding import decode, encode
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.objects import Objects, plain_name, source_text, without_state
from rf_notebook.core.redaction import private
from rf_notebook.core.run import RunConfig, objects_in
from rf_notebook.core.values import Json, flatten, whole

#: Fields of RFModelConfig that decide which base model is loaded.
MODEL_FIELDS = ("model_name", "model_type", "model_kwargs", "tokenizer", "tokenizer_kwargs")
_SECTIONS = ("peft_config", "training_args")
#: Fields whose values are dicts, of which one item can be edited.
_DICTS = ("model_kwargs", "tokenizer_kwargs", "ref_model_kwargs", "generation_config")
_ALIASES = {"peft_params": "peft_config"}


def build_run_config(
    fields: Mapping[str, Any],
    method: str,
    objects: Objects,
    *,
    seed: int,
    data_seed: int | None = None,
) -> RunConfig:
    """The RunConfig of chosen values.

    Args:
        fields: Those of RFModelConfig, without any List or Range.
        method: The trainer_type.
        objects: Takes what JSON cannot hold.
        seed: For a config that sets none.
        data_seed: The experiment's seed of the data's order.
    """
    fields = {**fields, "model_type": _model_type(fields["model_type"], method)}
    if method == "Reward" and (fields["num_gpus"] or 1) > 1:
        raise ConfigError(
            f"num_gpus={fields['num_gpus']} spreads causal models, and Reward trains one with a head that scores; "
            "remove it."
        )
    RFModelConfig(**fields)  # refuses what a List let through
    peft, training = fields["peft_config"], fields["training_args"]
    arguments = _encoded(training, objects)
    arguments.setdefault("seed", seed)
    if data_seed is not None:
        arguments.setdefault("data_seed", data_seed)
    extras = {
        name: encode(value, objects, name)
        for name, value in fields.items()
        if name not in MODEL_FIELDS and name not in _SECTIONS and value is not None
    }
    return RunConfig(
        method=method,
        model={name: encode(fields[name], objects, name) for name in MODEL_FIELDS},
        peft=None if peft is None else _encoded_adapter(peft, objects),
        training=arguments,
        extras=extras,
    )


def _model_type(given: Any, method: str) -> Any:
    """Which kind of model a method trains; what a custom one is, only its loader knows.

    Raises:
        ConfigError: for one that it cannot train.
    """
    if method == "Reward" and given == "causal_lm":
        return "sequence_classification"
    if method != "Reward" and given == "sequence_classification":
        raise ConfigError(
            f"{method} trains causal models, and model_type='sequence_classification' is for Reward; remove it."
        )
    return given


def _encoded_adapter(peft: AdapterConfig, objects: Objects) -> dict[str, Json]:
    kind = {} if isinstance(peft, RFLoraConfig) else {"peft_type": peft.peft_type}
    return {**kind, **_encoded(peft, objects)}


def _encoded(config: ArgumentsConfig, objects: Objects) -> dict[str, Json]:
    return {name: encode(value, objects, name) for name, value in config.given().items()}


def apply_edits(
    config: RunConfig, edits: Any, objects: Objects
) -> tuple[RunConfig, dict[str, Json]]:
    """A config with edits, and the edits by dotted key.

    Args:
        config: The parent's.
        edits: A dict with dotted keys (``{"training_args.learning_rate": 5e-5}``), a nested dict, a
            dict with bare argument names where they are unambiguous, or a config: an RFModelConfig
            replaces everything, an RFSFTConfig or RFLoraConfig the arguments it sets. An
            RFDPOConfig makes the clone of an SFT run a DPO run. A RunConfig is the edited config
            itself.
        objects: Holds and takes what JSON cannot hold.

    Raises:
        ConfigError: for keys that do not exist, values that cannot be, Lists and Ranges.
    """
    if isinstance(edits, RunConfig):
        return edits, _changed(config, edits)
    fields = _fields_of(config, objects)
    if isinstance(edits, RFModelConfig):
        fields = edits.given()
    elif isinstance(edits, ArgumentsConfig):
        section = "peft_config" if isinstance(edits, AdapterConfig) else "training_args"
        if isinstance(fields[section], type(edits)):
            for name, value in edits.given().items():
                _edit(fields, section, name, value, config)
        else:
            fields[section] = edits.copy()  # another method, or another kind of adapter
    elif isinstance(edits, Mapping):
        for path, value in _dotted(edits).items():
            section, name = _place(path, config)
            _edit(fields, section, name, value, config)
    elif edits is not None:
        raise ConfigError(f"edits must be a dict or a config, not {type(edits).__name__}.")
    _refuse_search_space(fields)
    training = fields["training_args"]
    if not isinstance(training, TrainingConfig):
        raise ConfigError(
            f"a clone takes one config of training_args, not a {type(training).__name__}."
        )
    data_seed = config.training.get("data_seed")
    edited = build_run_config(
        fields,
        training.method,
        objects,
        seed=whole(config.training["seed"]),
        data_seed=None if data_seed is None else whole(data_seed),
    )
    return edited, _changed(config, edited)


def functions_brought(edits: Any, config: RunConfig) -> dict[str, str]:
    """Sources of the functions that edits bring, by the names by which the config refers to them.

    Args:
        edits: See ``apply_edits``.
        config: What that returned.
    """
    names = list(objects_in(config.as_json()))
    found: dict[str, str] = {}
    for value in _values_in(edits):
        source = source_text(value)
        if source is not None:
            plain = plain_name(value)
            found |= {name: private(source) for name in names if without_state(name) == plain}
    return found


def _values_in(edits: Any) -> Iterator[Any]:
    if isinstance(edits, RFModelConfig | ArgumentsConfig):
        edits = edits.given()
    if isinstance(edits, Mapping):
        edits = list(edits.values())
    if isinstance(edits, list | tuple):
        for value in edits:
            yield from _values_in(value)
    else:
        yield edits


def _changed(config: RunConfig, edited: RunConfig) -> dict[str, Json]:
    before, after = flatten(config.as_json()), flatten(edited.as_json())
    return {key: after.get(key) for key in (*before, *after) if before.get(key) != after.get(key)}


def _fields_of(config: RunConfig, objects: Objects) -> dict[str, Any]:
    """The fields of RFModelConfig that make this config."""
    fields: dict[str, Any] = dict.fromkeys(RFModelConfig.FIELDS)
    fields.update(decode(dict(config.model), objects))
    fields.update(decode(dict(config.extras), objects))
    if config.peft is None:
        fields["peft_config"] = None
    else:
        given = decode(
            {name: value for name, value in config.peft.items() if name != "peft_type"}, objects
        )
        fields["peft_config"] = adapter_config_of(config.peft)(**given)
    fields["training_args"] = TRAINING_CONFIGS[config.method](
        **decode(dict(config.training), objects)
    )
    return fields


def _dotted(edits: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sections as dotted keys; dicts that are values of an argument stay whole."""
    flat: dict[str, Any] = {}
    for key, value in edits.items():
        if not isinstance(key, str):
            raise ConfigError(
                f"edits have the key {key!r}; keys are names such as 'training_args.learning_rate'."
            )
        section = _ALIASES.get(key, key)
        if section in _SECTIONS and isinstance(value, Mapping):
            flat.update({f"{section}.{name}": item for name, item in value.items()})
        else:
            flat[key] = value
    return flat


def _place(path: str, config: RunConfig) -> tuple[str, str]:
    """The section and the name that a key means.

    The section is "" for a field of RFModelConfig itself.
    """
    head, dot, rest = path.partition(".")
    head = _ALIASES.get(head, head)
    if dot:
        if head in _SECTIONS or head in _DICTS:
            return head, rest
        if head in RFModelConfig.FIELDS:
            raise ConfigError(f"{path!r} means nothing: {head} has no parts.")
        raise unknown_argument("the config", head, RFModelConfig.FIELDS)
    if head in RFModelConfig.FIELDS:
        return "", head
    training, adapter = (
        TRAINING_CONFIGS[config.method].known(),
        adapter_config_of(config.peft).known(),
    )
    if path in adapter and path not in training:
        return "peft_config", path
    if path in adapter and path in training:
        raise ConfigError(
            f"{path!r} is an argument of both sections; write 'peft_config.{path}' or 'training_args.{path}'."
        )
    return "training_args", path


def _edit(fields: dict[str, Any], section: str, name: str, value: Any, config: RunConfig) -> None:
    if section == "":
        if name in _SECTIONS and value is not None and not isinstance(value, ArgumentsConfig):
            raise ConfigError(
                f"{name} takes a config or None here; edit one argument with '{name}.NAME'."
            )
        fields[name] = value
        return
    target = fields[section]
    if isinstance(target, ArgumentsConfig):
        setattr(target, name, value)
    elif section == "peft_config":
        fields[section] = RFLoraConfig(**{name: value})
    elif section == "training_args":
        fields[section] = TRAINING_CONFIGS[config.method](**{name: value})
    else:
        fields[section] = {**(target or {}), name: value}


def _refuse_search_space(fields: Mapping[str, Any]) -> None:
    """A run has one value for each argument."""
    for name, value in fields.items():
        inner = value.given().items() if isinstance(value, ArgumentsConfig) else [(name, value)]
        for key, item in inner:
            if isinstance(item, List | Range):
                raise ConfigError(
                    f"{key}={item!r} holds several values; a clone takes one. Make a clone for each."
                )
