"""A run's model leaves the experiment: with a card, without paths and secrets, and to the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rf_notebook import ConfigError, Experiment
from rf_notebook.automl import RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.core.events import RunAdded
from rf_notebook.session.publishing import _on_the_hub
from rf_notebook.testing.fake_session import config as fake_config
from rf_notebook.testing.fake_session import points, recorded_state, started, trained
from rf_notebook.testing.tiny import create_tiny, text_rows, tiny_model
from rf_notebook.views.model_card import hub_name, write_card
from tests.hub import Hub, hub
from tests.widgets.hostile import TEXTS, hostile_state

pytestmark = pytest.mark.filterwarnings(
    "ignore:Could not find a config file"
)  # of a base that is gone
SECRET = "hf_" + "a" * 34


def make(folder: Path, **model: object) -> Experiment:
    experiment = Experiment("cards", experiment_path=folder)
    config = RFModelConfig(
        **{"model_name": "org/tiny-base", **model},  # type: ignore[arg-type]
        peft_config=RFLoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        training_args=RFSFTConfig(
            learning_rate=1e-2, max_length=32, max_steps=4, use_cpu=True, bf16=False
        ),
    )
    rows = text_rows(12, 1)
    search = RFGridSearch(config, trainer_type="SFT")
    experiment.run_fit(search, create_tiny, rows, text_rows(4, 2), num_chunks=2, display=False)
    return experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    made = make(tmp_path_factory.mktemp("publishing"))
    made.wait()
    assert made.clone(1, {"learning_rate": 2e-2}, warm_start=True).result(60).id == 2
    made.wait()
    made.label(2, name="the `best` <b>one</b>|", note=f"```\n# {SECRET}\n{Path.home()}/secret")
    made.end()
    return made


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[223, 322, 342]])).logits  # type: ignore[no-any-return]


def test_an_export_has_a_card_that_the_hubs_library_reads(
    experiment: Experiment, tmp_path: Path
) -> None:
    experiment.export(2, tmp_path / "adapter")
    card = ModelCard.load(tmp_path / "adapter" / "README.md")
    assert card.data.base_model == "org/tiny-base"
    assert card.data.library_name == "peft"
    assert card.data.tags == ["rf-notebook", "trl", "sft", "lora"]
    text = card.text
    loss = experiment.runs[1].metrics["eval_loss"]
    assert f"`{loss:.4g}`" in text
    assert "- a clone of run 1, with its adapter as it was: `{" in text
    assert 'learning_rate":0.02' in text.partition("- a clone of")[2].splitlines()[0]
    assert "learning_rate` | `0.02` |" in text
    assert "| `trl` |" in text
    assert 'PeftModel.from_pretrained(base, "FOLDER_OR_REPO")' in text
    assert (tmp_path / "adapter" / "curves.png").read_bytes().startswith(b"\x89PNG")
    for never in (SECRET, str(Path.home()) + "/", str(tmp_path), str(experiment.folder)):
        assert never not in (tmp_path / "adapter" / "README.md").read_text()
    assert "\n# `the 'best' <b>one</b>¦`\n" in text, "what a user typed is code, and one line"
    assert "\n    # [redacted]" in text


def test_no_text_acts_in_a_card(tmp_path: Path) -> None:
    """Names, notes, configs, metrics and reasons from anywhere are code, whatever is in them."""
    state = hostile_state()
    for run_id in state.runs:
        write_card(tmp_path, TEXTS[0], state, run_id, merged=False)
        lines = (tmp_path / "README.md").read_text().splitlines()
        text = "\n".join(lines)
        assert "pwned" in text
        shown = [line for line in lines if not line.startswith("    ")]
        outside = [part for line in shown for part in line.split("`")[::2]]
        assert not any("<" in part or "pwned" in part for part in outside)
        assert not any(sign in text for sign in "\x1b\u202e\u2066")
        assert len(text) < 200_000


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Hub:
    with hub() as held:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", held.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield held  # type: ignore[misc]


def test_a_model_is_pushed_and_can_be_used(
    experiment: Experiment, online: Hub, tmp_path: Path
) -> None:
    address = experiment.push_to_hub(2, "me/tiny-adapter", token=SECRET)
    assert address == f"{online.address}/me/tiny-adapter"
    assert online.made[0]["visibility"] == "private"
    files = online.files["me/tiny-adapter"]
    assert {"README.md", "curves.png", "adapter_config.json", "adapter_model.safetensors"} <= set(
        files
    )
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert str(Path.home()).encode() + b"/" not in content, name
        assert str(experiment.folder).encode() not in content, name
    model = PeftModel.from_pretrained(tiny_model(), str(tmp_path))
    torch.testing.assert_close(logits(model), logits(experiment.load(2, create_tiny)))
    AutoTokenizer.from_pretrained(str(tmp_path))
    assert not list(experiment.folder.glob("upload*"))


def test_what_the_hub_refuses_is_a_sentence_and_leaves_nothing(
    experiment: Experiment, online: Hub
) -> None:
    online.status = 401
    with pytest.raises(
        ConfigError, match=r"'me/x' was not uploaded to the hub: .*log in with hf auth login"
    ):
        experiment.push_to_hub(1, "me/x", token=SECRET)
    with pytest.raises(ConfigError, match=r"push_to_hub\(repo='a/b/c'\)"):
        experiment.push_to_hub(1, "a/b/c", token=SECRET)
    assert not list(experiment.folder.glob("upload*"))


def test_a_hub_that_is_not_there_is_a_sentence(
    experiment: Experiment, online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"'me/x' was not uploaded to the hub: .*refused"):
        experiment.push_to_hub(1, "me/x", token=SECRET)
    assert not list(experiment.folder.glob("upload*"))


def test_names_of_metrics_and_paths_in_lists_act_and_show_nowhere(tmp_path: Path) -> None:
    name = "eval_<img src=x onerror=pwned>"
    config = replace(fake_config(), extras={"files": ["/data/mine.txt", {"at": "~/x"}]})
    events = [
        started("e"),
        RunAdded(run_id=1, config=config),
        trained(1, points(1, 5, metrics=("loss", name))),
    ]
    write_card(tmp_path, "e", recorded_state(events), 1, merged=False)
    text = (tmp_path / "README.md").read_text()
    outside = [p for line in text.splitlines() if line[:4] != "    " for p in line.split("`")[::2]]
    assert "pwned" in text
    assert not any("<" in part for part in outside)
    assert "/data/mine.txt" not in text
    assert "~/x" not in text


def test_values_of_paths_are_no_names_on_the_hub() -> None:
    given = {"base_model_name_or_path": "/a/b", "x": [{"tokenizer_name_or_path": "./t"}]}
    kept = {"name_or_path": "org/name", "added_tokens_decoder": {"5": {"content": "/"}}}
    assert _on_the_hub(given | kept) == {
        "base_model_name_or_path": None,
        "x": [{"tokenizer_name_or_path": None}],
        **kept,
    }


def test_without_a_network_it_says_so(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        experiment.push_to_hub(1, "me/x", token=SECRET)


def test_a_local_base_is_named_nowhere(tmp_path: Path, online: Hub) -> None:
    base = tmp_path / "my base"
    model, tokenizer = create_tiny({})
    model.save_pretrained(base), tokenizer.save_pretrained(base)
    experiment = Experiment("local", experiment_path=tmp_path / "x")
    config = RFModelConfig(
        model_name=str(base),
        peft_config=RFLoraConfig(r=4, target_modules=["q_proj"]),
        training_args=RFSFTConfig(max_length=32, max_steps=2, use_cpu=True, bf16=False),
    )
    experiment.run_fit(
        RFGridSearch(config, trainer_type="SFT"), None, text_rows(6, 1), num_chunks=1, display=False
    )
    experiment.end()
    experiment.push_to_hub(1, "me/local", token=SECRET)
    for name, content in online.files["me/local"].items():
        assert b"my base" not in content, name
        assert str(tmp_path).encode() not in content, name
    assert (
        json.loads(online.files["me/local"]["adapter_config.json"])["base_model_name_or_path"]
        is None
    )
    assert b"a model that is not on the hub" in online.files["me/local"]["README.md"]


@pytest.mark.parametrize("how", ["load_in_4bit", "load_in_8bit"])
def test_an_adapter_over_a_quantised_base_is_folded_into_whole_weights(
    tmp_path: Path, how: str
) -> None:
    experiment = make(tmp_path / "x", model_kwargs={"quantised": how})
    experiment.end()
    experiment.export(1, tmp_path / "adapter")
    experiment.export(1, tmp_path / "merged", merge=True)
    assert "quantization_config" not in json.loads(
        (tmp_path / "merged" / "config.json").read_text()
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    weight = merged.model.layers[0].self_attn.q_proj.weight
    assert weight.dtype.is_floating_point
    # what the adapter was trained over, and itself at its side
    base = create_tiny({"model_kwargs": {"quantised": how}})[0].dequantize()
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=0, atol=1e-5)
    assert len(torch.unique(weight.detach()[0, :64])) > 16, "not rounded to four bits again"


def test_what_a_loader_of_the_users_calls_its_model_is_no_name_on_the_hub(tmp_path: Path) -> None:
    experiment = make(tmp_path / "x", model_name="my-own")
    experiment.end()
    experiment.export(1, tmp_path / "adapter")
    card = ModelCard.load(tmp_path / "adapter" / "README.md")
    assert card.data.base_model is None
    assert "of a model that is not on the hub" in card.text


def test_names_on_the_hub_are_told_from_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("gpt2", "org/model-1.5B", "org/m_x.y"):
        assert hub_name(name) == name
    for name in ("/abs/x", "./x", "../x", "~/x", "models", "a/b/c", "C:\\x", "", None, 3):
        assert hub_name(name) is None


def test_importing_the_card_imports_no_hub() -> None:
    code = "import sys, rf_notebook.views.model_card; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
