"""A warm start keeps the parent's function, or says what was lost."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from rf_notebook.core.errors import ConfigError
from rf_notebook.store.adapters import check_adapter
from rf_notebook.testing.tiny import tiny_model
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.warm_start import Start, load_start, save_start, take_snapshot, warm_start

BASE = tiny_model()
IDS = torch.arange(2 * 24).view(2, 24) % 500
QV = ["q_proj", "v_proj"]


def adapted(*, seed=0, trained=False, **lora):
    torch.manual_seed(seed)
    given = {"r": 8, "lora_alpha": 16, "target_modules": QV, **lora}
    model = get_peft_model(tree_clone(BASE), LoraConfig(task_type="CAUSAL_LM", **given)).eval()
    if trained:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not parameter.requires_grad:
                    continue
                if "magnitude" in name:
                    parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
                else:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def distance(a, b):
    return float((logits(a) - logits(b)).abs().max() / logits(a).abs().max())


SAME_FUNCTION = {
    "same shape": ({}, {}, 0.0),
    "alpha 16 to 32": ({}, {"lora_alpha": 32}, 0.0),
    "rank 8 to 16": ({}, {"r": 16, "lora_alpha": 32}, 1e-6),
    "rank 8 to 64, other scale": ({}, {"r": 64, "lora_alpha": 10}, 2e-6),
    "rsLoRA": ({}, {"use_rslora": True}, 2e-6),
    "added targets": ({}, {"target_modules": [*QV, "o_proj", "down_proj"]}, 0.0),
    "embeddings": (
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["embed_tokens"], "r": 16},
        2e-6,
    ),
    "DoRA to DoRA": ({"use_dora": True}, {"use_dora": True}, 1e-6),
    "DoRA grown": ({"use_dora": True}, {"use_dora": True, "r": 32}, 3e-6),
    "LoRA to DoRA": ({}, {"use_dora": True}, 3e-6),
    "LoRA to grown DoRA": ({}, {"use_dora": True, "r": 16}, 3e-6),
    "trained embeddings beside": (
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens"]},
        0.0,
    ),
}


@pytest.mark.parametrize(
    ("parent", "child", "tolerance"), SAME_FUNCTION.values(), ids=SAME_FUNCTION
)
def test_the_parents_function_is_kept(parent, child, tolerance):
    """Tolerances are float32 rounding of another order of sums.

    0 where the arithmetic is the same.
    """
    mother, daughter = adapted(seed=1, trained=True, **parent), adapted(seed=2, **child)
    assert distance(mother, daughter) > 1e-3, "the parent must differ from a fresh adapter"
    report = warm_start(daughter, take_snapshot(mother))
    assert distance(mother, daughter) <= tolerance
    assert not report.shrunk
    assert not report.dropped


@torch.no_grad()
def test_a_smaller_rank_is_the_best_approximation_and_tells_the_loss():
    mother, daughter = adapted(seed=1, trained=True), adapted(seed=2, r=4, lora_alpha=8)
    report = warm_start(daughter, take_snapshot(mother))
    assert set(report.shrunk) == set(take_snapshot(mother).layers)
    for name, module in daughter.named_modules():
        if name not in report.shrunk:
            continue
        other = mother.get_submodule(name)
        whole = 2.0 * other.lora_B["default"].weight @ other.lora_A["default"].weight
        kept = (
            module.scaling["default"]
            * module.lora_B["default"].weight
            @ module.lora_A["default"].weight
        )
        u, s, v = torch.linalg.svd(whole.double())
        best = (u[:, :4] * s[:4]) @ v[:4]
        assert torch.allclose(kept.double(), best, atol=1e-5)
        lost = s[4:].norm() / s.norm()
        assert report.shrunk[name] == pytest.approx(float(lost), rel=1e-5)
    assert "at most" in report.sentence()


def test_shrinking_what_fits_into_the_smaller_rank_loses_nothing():
    mother = adapted(seed=1, trained=True)
    with torch.no_grad():
        for name, parameter in mother.named_parameters():
            if "lora_B" in name:
                parameter[:, 3:] = 0
    daughter = adapted(seed=2, r=4)
    report = warm_start(daughter, take_snapshot(mother))
    assert max(report.shrunk.values()) < 1e-6
    assert distance(mother, daughter) < 3e-6


def test_dora_to_lora_is_told_as_a_loss():
    mother, daughter = adapted(seed=1, trained=True, use_dora=True), adapted(seed=2, r=64)
    report = warm_start(daughter, take_snapshot(mother))
    # rank 64 is the full rank of the tiny model, so here nothing is lost but it is still an
    # approximation
    assert set(report.shrunk) == set(take_snapshot(mother).layers)
    assert max(report.shrunk.values()) < 1e-6
    assert distance(mother, daughter) < 1e-4
    small = adapted(seed=2, r=4)
    assert max(warm_start(small, take_snapshot(mother)).shrunk.values()) > 0.05


def test_dropped_and_fresh_modules_are_reported():
    mother = adapted(seed=1, trained=True, target_modules=["q_proj", "k_proj"])
    daughter = adapted(seed=2, target_modules=["q_proj", "o_proj"])
    report = warm_start(daughter, take_snapshot(mother))
    assert all(name.endswith("q_proj") for name in report.copied)
    assert all(name.endswith("o_proj") for name in report.fresh)
    assert all(name.endswith("k_proj") for name in report.dropped)
    assert len(report.copied) == len(report.fresh) == len(report.dropped) == 2


def test_a_snapshot_comes_back_from_the_disk_as_it_was(tmp_path):
    mother = adapted(seed=1, trained=True, use_dora=True, modules_to_save=["lm_head"])
    snapshot = take_snapshot(mother)
    save_start(Start(snapshot, None), tmp_path)
    start = load_start(tmp_path, base=lambda: pytest.fail("no model is needed"))
    assert start.reference is None
    again = start.adapter
    assert again.layers.keys() == snapshot.layers.keys()
    for name, layer in snapshot.layers.items():
        assert again.layers[name].scale == layer.scale
        for part in ("a_RI", "b_OR", "magnitude_O"):
            assert torch.equal(getattr(again.layers[name], part), getattr(layer, part))
    assert again.others.keys() == snapshot.others.keys()
    assert len(snapshot.others) == 1


def test_the_snapshot_is_a_copy():
    mother = adapted(seed=1, trained=True)
    snapshot = take_snapshot(mother)
    before = {name: layer.a_RI.clone() for name, layer in snapshot.layers.items()}
    with torch.no_grad():
        for parameter in mother.parameters():
            parameter.add_(1)
    assert all(torch.equal(snapshot.layers[name].a_RI, tensor) for name, tensor in before.items())


# ---- adapters from others, in peft's own format


def exported(folder, **lora):
    adapted(trained=True, seed=1, **lora).save_pretrained(folder, save_embedding_layers=False)
    return folder / "adapter_model.safetensors"


def test_an_adapter_file_is_started_from_as_it_is(tmp_path):
    exported(tmp_path)
    model = adapted(seed=2)
    report = warm_start(model, load_start(tmp_path, lambda: BASE).adapter)
    assert len(report.copied) == 4
    assert distance(adapted(trained=True, seed=1), model) == 0


def test_counts_come_from_what_the_file_holds(tmp_path):
    file = exported(tmp_path)
    tensors = load_file(file)
    save_file({name: one for name, one in tensors.items() if ".layers.0." in name}, file)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        start = load_start(tmp_path, lambda: BASE)
    report = warm_start(adapted(seed=2), start.adapter)
    assert (len(report.copied), len(report.fresh)) == (2, 2)


@pytest.mark.parametrize("name", ["x", "base_model.model.other.lora_A.weight"])
def test_a_file_without_its_tensors_is_refused(tmp_path, name):
    save_file({name: torch.zeros(1)}, exported(tmp_path))
    if name == "x":
        with pytest.raises(ConfigError, match="holds no weights of an adapter"):
            check_adapter(tmp_path)
    with (
        pytest.warns(UserWarning, match="missing adapter keys"),
        pytest.raises(ConfigError, match="holds none of the 8 weights"),
    ):
        load_start(tmp_path, lambda: BASE)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("field", ["target_modules", "rank_pattern", "exclude_modules"])
def test_a_pattern_that_does_not_end_is_not_tried(tmp_path, field):
    exported(tmp_path)
    endless = "(([a-z]|_|[.])+)+([a-z_.]*)*\\d!"
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {field: {endless: 4} if "rank" in field else endless}))
    if field == "rank_pattern":
        with pytest.raises(ConfigError, match="might not come to an end"):
            check_adapter(tmp_path)
    else:
        assert len(load_start(tmp_path, lambda: BASE).adapter.layers) == 4


def test_modules_may_be_written_as_a_pattern(tmp_path):
    pattern = r".*\.self_attn\.(q_proj|v_proj)"
    exported(tmp_path, target_modules=pattern)
    assert len(load_start(tmp_path, lambda: BASE).adapter.layers) == 4


def test_what_is_excluded_by_a_pattern_stays_without_an_adapter(tmp_path):
    exported(tmp_path, exclude_modules=r".*layers\.0\..*")
    layers = load_start(tmp_path, lambda: BASE).adapter.layers
    assert len(layers) == 2
    assert not any(".layers.0." in name for name in layers)


def test_files_may_be_links_as_in_the_hubs_cache(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    exported(tmp_path / "blobs")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / name)
    check_adapter(tmp_path / "snapshot")
    assert len(load_start(tmp_path / "snapshot", lambda: BASE).adapter.layers) == 4
