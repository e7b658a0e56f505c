"""Two objects that train differently never have one name; one object always has the same."""

from __future__ import annotations

import dataclasses
import functools
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rf_notebook.automl.adapter_configs import RFLoraConfig
from rf_notebook.automl.concrete import apply_edits, build_run_config
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import RFSFTConfig
from rf_notebook.core.encoding import decode, encode
from rf_notebook.core.objects import (
    Objects,
    has_canonical_state,
    has_state,
    plain_name,
    without_state,
)


class Reward:
    def __init__(self, weight):
        self.weight, self.calls = weight, 0

    def __call__(self, completions, **columns):
        self.calls += 1
        return [self.weight] * len(completions)

    def half(self, completions, **columns):
        return [self.weight / 2] * len(completions)


class Locked(Reward):
    def __init__(self, weight):
        super().__init__(weight)
        self.lock = threading.Lock()


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, completions, **columns):
        return [self.weight]


@dataclasses.dataclass
class Described:
    weight: float

    def __call__(self, completions, **columns):
        return [self.weight]

    def __repr__(self):
        return "Described()"  # says nothing of the weight


def closure(value):
    def reward(completions, **columns):
        return value

    return reward


def default(value):
    def reward(completions, weights=value, **columns):
        return weights

    return reward


def wrapped(value):
    inner = closure(value)

    @functools.wraps(inner)
    def outer(**columns):
        return inner(**columns)

    return outer


def executed(value):
    namespace = {}
    exec(f"def reward(completions, **columns): return {value}", namespace)
    return namespace["reward"]


FAMILIES = {
    "instances": lambda n: Reward(n),
    "instances with a lock": lambda n: Locked(n),
    "slots": lambda n: Slotted(n),
    "an unhelpful repr": lambda n: Described(float(n)),
    "bound methods": lambda n: Reward(n).half,
    "bound methods of what has no canonical state": lambda n: Locked(n).half,
    "partials of instances": lambda n: functools.partial(Reward(n)),
    "partials with objects": lambda n: functools.partial(len, Reward(n)),
    "partials with numbers": lambda n: functools.partial(len, n),
    "closures over numbers": closure,
    "closures over objects": lambda n: closure(Reward(n)),
    "closures over long arrays": lambda n: closure(np.where(np.arange(5000) == 2500, n, 0)),
    "closures over frames": lambda n: closure(pd.DataFrame({"a": range(500), "b": n})),
    "closures over closures": lambda n: closure(closure(n)),
    "closures over lambdas of a line": lambda n: closure([lambda: 1, lambda: 2, lambda: 3][n]),
    "defaults": lambda n: default({"a": [n]}),
    "defaults that are objects": lambda n: default(Reward(n)),
    "decorated functions": wrapped,
    "functions without a source": executed,
    "lambdas of a line": lambda n: [lambda **c: 1, lambda **c: 2, lambda **c: 3][n],
    "random generators": lambda n: closure(random.Random(n)),
    "numpy's generators": lambda n: closure(np.random.default_rng(n)),
    "open files": lambda n: closure(Path(__file__).open()),  # noqa: SIM115 - closed with the objects
    "arrays": lambda n: np.where(np.arange(5000) == 2500, n, 0),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:unclosed file")
def test_objects_that_differ_have_names_that_differ_and_each_comes_back_as_itself(family):
    objects, made = Objects(), [FAMILIES[family](n) for n in range(3)]
    encoded = [encode(value, objects) for value in made]
    assert len({one["$object"] for one in encoded}) == 3, encoded
    for value, one in zip(made, encoded, strict=True):
        again = decode(one, objects)
        assert again is value or again == value
    assert [encode(value, objects) for value in made] == encoded


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:unclosed file")
def test_the_same_cell_makes_the_same_names_in_another_kernel(family):
    def names():
        objects = Objects()
        made = [FAMILIES[family](n) for n in range(3)]
        return [objects.add(value) for value in made]

    assert names() == names()


@pytest.mark.starts_processes
def test_names_are_equal_in_another_process_whatever_its_hash_seed():
    code = (
        "from tests.core.test_objects import *;o=Objects();"
        "print([o.add(v) for v in (Reward(2), closure({'a','b','c'}), Described(1.0), default(Reward({'x', 'y'})), (lambda x: x in {'a', 'b', 'c'}))])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_equal_objects_stay_apart_when_each_may_change_and_plain_functions_do_not():
    objects, pair = Objects(), [Reward(1), Reward(1)]
    names = [objects.add(one) for one in pair]
    assert names[0] != names[1]
    assert without_state(names[0]) == without_state(names[1])
    assert decode({"$object": names[1]}, objects) is pair[1]
    assert objects.add(closure(1)) == objects.add(closure(1))


def test_an_object_keeps_its_name_while_its_state_changes_also_in_the_next_launch():
    objects, reward = Objects(), Reward(1)
    name = objects.add(reward)
    reward.calls = 7
    assert objects.add(reward) == name
    again = objects.for_launch()
    assert again.add(reward) == name


def test_a_cell_that_is_run_again_makes_new_objects_with_the_old_names():
    def cell(objects):
        return [
            objects.add(value)
            for value in (Reward(1), Reward(1), Locked(1), Locked(2), closure(Reward(3)))
        ]

    first = Objects()
    names = cell(first)
    first.seal()
    assert cell(first.for_launch()) == names


def test_what_comes_with_a_clone_never_takes_the_place_of_what_the_search_has():
    objects = Objects()
    there = [objects.add(value) for value in (Reward(1), Locked(1))]
    objects.seal()
    came = [objects.add(value) for value in (Reward(1), Locked(1), Locked(1))]
    assert len({*there, *came}) == 5
    assert [without_state(name) for name in came] == [
        without_state(there[0]),
        *[without_state(there[1])] * 2,
    ]
    assert not any(name in objects.for_launch().sources() for name in there if "#" in name)


def test_names_say_whether_the_state_can_be_compared():
    objects = Objects()
    assert not has_state(objects.add(closure(1)))
    assert has_canonical_state(objects.add(Reward(1)))
    locked = objects.add(Locked(1))
    assert has_state(locked)
    assert not has_canonical_state(locked)


def test_the_source_of_a_class_in_a_cell_is_found():
    import linecache

    text = (
        "import x\n\nclass Cell:\n    def __call__(self, **columns):\n        return [1]\n\ny = 1\n"
    )
    linecache.cache["<a cell>"] = (len(text), None, text.splitlines(keepends=True), "<a cell>")
    namespace = {"__name__": "nowhere"}
    exec(compile(text.replace("import x\n", "\n"), "<a cell>", "exec"), namespace)
    objects = Objects()
    name = objects.add(namespace["Cell"]())
    assert (
        objects.sources()[name]
        == "class Cell:\n    def __call__(self, **columns):\n        return [1]\n"
    )


# ---- secrets


def config_with(token, objects):
    given = RFModelConfig(
        model_name="m",
        model_kwargs={"token": token},
        peft_config=RFLoraConfig(r=8),
        training_args=RFSFTConfig(),
    )
    return build_run_config(given.given(), "SFT", objects, seed=0)


@pytest.mark.parametrize(
    "pair",
    [("dear", "cheap"), ("hf_" + "a" * 20, "hf_" + "b" * 20)],
)
def test_two_secrets_of_one_argument_stay_two(pair):
    objects = Objects()
    configs = [config_with(token, objects) for token in pair]
    assert configs[0].digest() != configs[1].digest()
    assert [decode(c.model["model_kwargs"], objects)["token"] for c in configs] == list(pair)
    assert config_with(pair[0], objects) == configs[0]
    assert not any(token in str(config.as_json()) for token in pair for config in configs)


def test_secrets_inside_texts_stay_two():
    objects, urls = Objects(), [f"https://me:{word}@example.org/model" for word in ("one", "two")]
    encoded = [encode(url, objects) for url in urls]
    assert encoded[0] != encoded[1]
    assert [decode(one, objects) for one in encoded] == urls


def test_a_preview_changes_nothing_of_the_runs():
    objects = Objects()
    config = config_with("first", objects)
    scratch = objects.scratch()
    edited, _ = apply_edits(config, {"model_kwargs": {"token": "typed"}}, scratch)
    assert decode(edited.model["model_kwargs"], scratch) == {"token": "typed"}
    assert decode(config.model["model_kwargs"], objects) == {"token": "first"}
    with pytest.raises(KeyError):
        objects._live[f"secret {edited.model['model_kwargs']['token']['$secret']}"]  # noqa: SLF001 - what is really held


def test_another_token_for_the_same_place_is_the_same_config():
    """Tokens are renewed; a record is continued with the new one."""
    old, objects = config_with("old", first := Objects()), first.for_launch()
    new = config_with("new", objects)
    assert new.digest() == old.digest()
    assert decode(new.model["model_kwargs"], objects) == {"token": "new"}


def names_in(tokens, objects):
    return [
        config_with(token, objects).model["model_kwargs"]["token"]["$secret"] for token in tokens
    ]


def test_secrets_keep_their_names_in_a_search_that_is_written_in_another_order():
    first = Objects()
    assert names_in(["dear", "cheap", "free"], first) == ["token", "token#2", "token#3"]
    next_kernel = Objects(first.secret_names())
    assert names_in(["free", "dear", "cheap"], next_kernel) == ["token#3", "token", "token#2"]
    assert next_kernel.get_secret("token#3") == "free"


def test_a_renewed_secret_takes_the_name_of_the_one_before():
    first = Objects()
    names_in(["old"], first)
    second = Objects(first.secret_names())
    assert names_in(["new"], second) == ["token"]
    third = Objects(second.secret_names())
    assert names_in(["other", "new"], third) == ["token", "token#2"]


def test_digests_of_secrets_are_salted():
    one, other = Objects(), Objects()
    for objects in (one, other):
        names_in(["dear", "cheap"], objects)
    digests = {
        digest for objects in (one, other) for digest in objects.secret_names().digests.values()
    }
    assert len(digests) == 4
    assert all(len(digest) == 32 for digest in digests)


# ---- dicts


@pytest.mark.parametrize(
    "given",
    [
        {0: "20GiB", "cpu": "1GiB"},
        {"": 0},
        {0: {1: [2, (3, {4: 5})]}},
        {(0, 1): "a"},
        {None: 1, True: 2, 1.5: 3},
        {"a": {"b": {}}},
    ],
)
def test_dicts_come_back_with_the_keys_that_were_typed(given):
    import json

    encoded = json.loads(json.dumps(encode(given, objects := Objects())))
    decoded = decode(encoded, objects)
    assert decoded == given
    assert str(decoded) == str(given)


def test_plain_functions_have_the_names_that_version_1_gave_them():
    """Records of it are continued; see tests/test_records_of_version_1.py for whole ones."""
    assert plain_name(closure).startswith("closure@")
    assert without_state(plain_name(closure)) == plain_name(closure)
