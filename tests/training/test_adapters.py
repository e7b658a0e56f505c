"""Every kind of adapter beyond its training: loaded, folded in, started from; and those that are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftType
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rf_notebook.automl import RFPsoftConfig, RFPveraConfig
from rf_notebook.automl.adapter_configs import ADAPTER_CONFIGS, REFUSED_ADAPTERS
from rf_notebook.automl.yaml_grid import parse_grid
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.objects import Objects
from rf_notebook.core.operations import CloneRun
from rf_notebook.core.run import RunState
from rf_notebook.engine.loop import Engine
from rf_notebook.store.adapters import check_adapter
from rf_notebook.testing.tiny import tiny_model
from rf_notebook.training.trained_model import export_model, trained_model
from tests.exactness.adapters import ADAPTERS
from tests.exactness.cases import data
from tests.exactness.harness import start, turn_all

#: Several kinds warn of what they are (no bias to fold into, no CUDA extension to compile).
pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = list(ADAPTERS)
#: peft cannot fold these into the tiny model's weights; BEFT's biases need layers that have one.
NEVER_MERGED = {"BEFT", "CARTRIDGE", "LILY", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "SHADOW"}
TOKENS = torch.tensor([[223, 322, 342, 333, 325, 272]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    """A finished run of every kind, in the order of KINDS."""
    folder = tmp_path_factory.mktemp("adapters")
    engine = start(
        folder, [f"adapter_{kind.lower()}" for kind in KINDS], data("adapters"), num_chunks=2
    )
    turn_all(engine)
    yield engine, folder
    engine.fleet.close()


def model_of(trained: tuple[Engine, Path], kind: str) -> Any:
    engine, folder = trained
    record = engine.state.record(KINDS.index(kind) + 1)
    assert record.state is RunState.COMPLETED, record.failure
    assert record.newest is not None
    runner = engine.fleet.runner  # type: ignore[attr-defined]
    return trained_model(runner.models, folder, Objects(), record.config, record.newest)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=TOKENS).logits[:, -TOKENS.shape[1] :]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_loaded_folded_in_and_its_base_is_left_alone(
    trained: tuple[Engine, Path], kind: str, tmp_path: Path
) -> None:
    loaded = model_of(trained, kind)
    base = tiny_model()
    answers = logits(loaded.model)
    assert not torch.equal(answers, logits(base)), "it learned something"
    loaded.model.generate(input_ids=TOKENS, max_new_tokens=3, do_sample=False)
    if kind in NEVER_MERGED:
        with pytest.raises(ConfigError, match=f"cannot fold an adapter of the kind {kind} into"):
            export_model(loaded, tmp_path / "merged", merge=True)
        assert not (tmp_path / "merged").exists()
    else:
        export_model(loaded, tmp_path / "merged", merge=True)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(logits(merged), answers, rtol=0, atol=1e-5)
    (resident,) = trained[0].fleet.runner.models.loaded.values()  # type: ignore[attr-defined]
    for (name, found), (_, expected) in zip(
        resident.model.named_parameters(), base.named_parameters(), strict=True
    ):
        assert torch.equal(found, expected), name


def test_a_run_of_every_kind_is_started_from(trained: tuple[Engine, Path]) -> None:
    """With a rate of zero a clone evaluates as its parent did last."""
    engine, _ = trained
    receipts = []
    for number in range(1, len(KINDS) + 1):
        config = engine.state.record(number).config
        still = replace(config, training={**config.training, "learning_rate": 0.0})
        clone = CloneRun(run_id=number, config=still, edits={}, warm_start=True)
        receipts.append(engine.mailbox.submit(clone))
    turn_all(engine)
    for kind, number, receipt in zip(KINDS, range(1, len(KINDS) + 1), receipts, strict=True):
        clone = engine.state.record(receipt.result(1))
        assert clone.state is RunState.COMPLETED, (kind, clone.failure)
        report = clone.warm_start_report
        assert report is not None
        assert report.copied, kind
        assert (report.fresh, report.dropped, dict(report.shrunk)) == ((), (), {}), kind
        parents = [p.metrics["eval_loss"] for p in evaluated(engine, number)]
        clones = [p.metrics["eval_loss"] for p in evaluated(engine, clone.run_id)]
        assert clones == pytest.approx([parents[-1]] * len(clones), abs=1e-6), kind


def evaluated(engine: Engine, run_id: int) -> list[Any]:
    points = engine.state.record(run_id).all_points()
    return [point for point in points if "eval_loss" in point.metrics]


def test_every_kind_of_pefts_has_a_class_or_a_reason() -> None:
    assert {kind.value for kind in PeftType} == {*ADAPTER_CONFIGS, *REFUSED_ADAPTERS}
    assert not ADAPTER_CONFIGS.keys() & REFUSED_ADAPTERS.keys()


@pytest.mark.parametrize("kind", REFUSED_ADAPTERS)
def test_a_kind_that_does_not_train_is_refused_with_its_reason(kind: str) -> None:
    text = f"model_name: m\npeft_config: {{peft_type: {kind}}}\ntraining_args: {{}}\n"
    with pytest.raises(ConfigError, match=f"peft_type '{kind}' does not train here: "):
        parse_grid(text, {})


def test_settings_that_would_not_be_exact_are_refused() -> None:
    with pytest.raises(ConfigError, match="seeds the process's random stream"):
        RFPsoftConfig(psoft_svd="lowrank")
    assert RFPsoftConfig(psoft_svd="full").psoft_svd == "full"
    with pytest.raises(ConfigError, match="is in no checkpoint"):
        RFPveraConfig(generator_seed=1)


def test_a_prompt_from_elsewhere_is_not_started_from(tmp_path: Path) -> None:
    name = "base_model.model.layers.0.q_proj.lora_A.weight"
    save_file({name: torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "P_TUNING"}))
    with pytest.raises(ConfigError, match=r"is a prompt \(P_TUNING\)"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    check_adapter(tmp_path)


def test_the_documentation_lists_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    listed = {row[1].strip("`"): row for row in rows if row[0].startswith("| `RF")}
    assert listed.keys() == ADAPTER_CONFIGS.keys()
    for kind, (name, _, merges) in listed.items():
        assert name == f"| `{ADAPTER_CONFIGS[kind].__name__}`"
        assert (merges != "yes |") == (kind in NEVER_MERGED), kind
    reasons = {
        row[0].strip("| `"): row[1].removesuffix(" |")
        for row in rows
        if len(row) == 2 and row[1] != "why |"
    }
    assert reasons == REFUSED_ADAPTERS
