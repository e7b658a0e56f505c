"""Configs beside the libraries that they are for."""

from __future__ import annotations

import dataclasses

import pytest

from rf_notebook.automl.adapter_configs import ADAPTER_CONFIGS
from rf_notebook.automl.arguments import arguments_of
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.encoding import decode, encode
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.objects import Objects
from rf_notebook.core.values import canonical_json


@pytest.mark.parametrize(
    "kind", [c.wraps for c in (*ADAPTER_CONFIGS.values(), *TRAINING_CONFIGS.values())]
)
def test_the_arguments_read_from_the_source_are_those_of_the_class(kind):
    import peft
    import trl

    cls = getattr({"peft": peft, "trl": trl}[kind.split(".")[0]], kind.split(".")[1])
    assert set(arguments_of(kind)) == {f.name for f in dataclasses.fields(cls) if f.init}


def test_a_kind_that_an_older_peft_does_not_have_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"peft \S+ has no NoSuchConfig; update peft\."):
        arguments_of("peft.NoSuchConfig")


def test_what_json_cannot_hold_is_kept_beside_and_recognised_again():
    import torch

    def reward(completions):
        return [1.0 for _ in completions]

    objects = Objects()
    value = {
        "f": reward,
        "t": (1, 2),
        "s": {"b", "a"},
        "d": torch.bfloat16,
        "n": None,
        "x": 1e-3,
        "l": [len],
    }
    encoded = encode(value, objects)
    canonical_json(encoded)
    assert encoded["d"] == "bfloat16"
    assert decode(encoded, objects) == {**value, "d": "bfloat16"}
    assert encode(value, Objects()) == encoded
    with pytest.raises(ConfigError, match="has not been given"):
        decode(encoded, Objects())
