"""What a user does with an Experiment, on real trainers."""

from __future__ import annotations

import json
import threading
import time

import pytest
import torch

import rf_notebook.training.runner  # noqa: F401 - so that no refusal is timed together with this import
from rf_notebook import ConfigError, IllegalOperation
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFSFTConfig
from rf_notebook.core.run import RunState
from rf_notebook.testing.tiny import create_tiny, prompt_rows, tiny_model
from tests.api.world import until
from tests.experiment_world import curve, fit, grid, model, two


def test_a_handle_shows_what_holds_now(new):
    experiment = new()
    fit(experiment, two(), rows=60)
    run = experiment.run(1)
    assert run.state in ("queued", "running")
    until(lambda: run.steps >= 3)
    assert 0 < run.progress < 1
    assert run.metrics["loss"] > 0
    experiment.wait()
    assert (run.steps, run.samples, run.progress, run.eta) == (30, 60, 1.0, None)
    assert run.config["peft_config"]["r"] == 4
    assert (run.checkpoint / "adapter_model.safetensors").exists()
    assert repr(run).startswith("<Run 1: completed, 100%, loss=")


def test_operations_give_receipts_with_handles_and_several_at_once(new):
    experiment = fit(new(), grid(learning_rate=List([1e-3, 2e-3, 3e-3])), rows=90)
    stopped = experiment.stop([1, experiment.run(2)]).result(timeout=30)
    assert [run.state for run in stopped] == ["stopped", "stopped"]
    resumed = experiment.resume(1).result(timeout=30)
    assert resumed.id == 1
    assert resumed.state in ("queued", "running")
    until(lambda: experiment.run(3).steps > 0)
    clone = experiment.clone(3, {"learning_rate": 5e-4, "r": 8}, warm_start=True).result(timeout=30)
    assert (clone.id, clone.parent) == (4, 3)
    assert clone.edits == {"peft_config.r": 8, "training_args.learning_rate": 5e-4}
    deleted = experiment.delete(2).result(timeout=30)
    assert deleted.state == "deleted"
    experiment.wait()
    assert [str(run.state) for run in experiment.runs] == [
        "completed",
        "deleted",
        "completed",
        "completed",
    ]
    assert len(clone.warm_start_report.grown) == 4
    names = [type(operation.operation).__name__ for operation, _ in experiment.operations]
    assert names == ["StopRun", "StopRun", "ResumeRun", "CloneRun", "DeleteRun"]
    receipt = experiment.resume(1)
    with pytest.raises(IllegalOperation, match="cannot resume run 1: it is completed"):
        receipt.result(timeout=30)
    assert repr(receipt).startswith("<Receipt: refused: cannot resume")


@pytest.mark.parametrize(
    "given",
    ["list", "pandas", "dataset", "stream", "messages"],
)
def test_data_as_users_have_it(new, given):
    rows = prompt_rows(24, 1)
    search = grid()
    data = {
        "list": list(rows),
        "pandas": rows.to_pandas(),
        "dataset": rows,
        "stream": rows.to_iterable_dataset(),
        "messages": [
            {
                "messages": [
                    {"role": "user", "content": r["prompt"]},
                    {"role": "assistant", "content": r["completion"]},
                ]
            }
            for r in rows
        ],
    }[given]
    if given == "stream":
        search = grid(max_steps=12)
    experiment = new()
    experiment.run_fit(search, create_tiny, data, num_chunks=3)
    experiment.wait()
    assert experiment.run(1).state == "completed", experiment.run(1).error
    assert experiment.session.state.record(1).progress.chunks == 3


def test_a_stream_without_max_steps_is_refused(new):
    with pytest.raises(ConfigError, match=r"stream without length.* set training_args\.max_steps"):
        new().run_fit(grid(), create_tiny, prompt_rows(24, 1).to_iterable_dataset())


def test_a_run_that_raises_fails_alone(new):
    rows = [*prompt_rows(23, 1), {"prompt": "x", "completion": None}]

    def metrics(pred):
        raise RuntimeError("metric broke with token hf_abcdefghijklmnopqrstuv")

    good, bad = model(), model(learning_rate=3e-3)
    bad.compute_metrics = metrics
    experiment = new()
    experiment.run_fit(
        RFGridSearch([bad, good], "SFT"), create_tiny, rows[:23], prompt_rows(6, 2), num_chunks=3
    )
    experiment.wait()
    failed = experiment.run(1)
    assert failed.state == "failed"
    assert failed.error == "RuntimeError: metric broke with token [redacted]"
    assert "in metrics" in failed.traceback
    assert "hf_abc" not in experiment.get_log_file_path().read_text()
    assert experiment.run(2).state == "completed"
    experiment.end()
    alone = new("alone")
    alone.run_fit(
        RFGridSearch([good], "SFT"), create_tiny, rows[:23], prompt_rows(6, 2), num_chunks=3
    )
    alone.wait()
    assert curve(alone, 1) == curve(experiment, 2)


def test_a_nan_loss_fails_a_run_when_asked(new):
    experiment = fit(
        new(), grid(learning_rate=List([1e-3, 1e38]), max_grad_norm=0.0), fail_on_nan=True
    )
    experiment.wait()
    assert experiment.run(1).state == "completed"
    assert experiment.run(2).state == "failed"
    assert "not a number at step" in experiment.run(2).error


def test_a_base_model_that_does_not_load_fails_its_runs_with_its_text(new):
    def create(config):
        raise FileNotFoundError("no such model: https://me:secretpass@host/x")

    experiment = new()
    experiment.run_fit(grid(), create, prompt_rows(24, 1))
    experiment.wait()
    assert (
        experiment.run(1).error == "FileNotFoundError: no such model: https://me:[redacted]@host/x"
    )


def test_create_model_fn_is_called_once_per_distinct_model_with_what_it_needs(new):
    asked = []

    def create(config):
        asked.append(config)
        return create_tiny(config)

    small, large = model(), model()
    small.model_kwargs, large.model_kwargs = {"hidden": 32}, {"hidden": 64}
    experiment = new()
    experiment.run_fit(
        RFGridSearch([small, large], "SFT"),
        create,
        prompt_rows(24, 1),
        prompt_rows(6, 2),
        num_chunks=3,
    )
    experiment.wait()
    assert [c["model_kwargs"] for c in asked] == [{"hidden": 32}, {"hidden": 64}]
    assert set(asked[0]) == {
        "model_name",
        "model_type",
        "model_kwargs",
        "tokenizer",
        "tokenizer_kwargs",
    }
    assert all(run.state == "completed" for run in experiment.runs)


def test_the_default_loader_loads_a_folder(new, tmp_path):
    create_tiny({})[0].save_pretrained(tmp_path / "base")
    create_tiny({})[1].save_pretrained(tmp_path / "base")
    config = model()
    config.model_name, config.model_kwargs = (
        str(tmp_path / "base"),
        {"device_map": "auto", "torch_dtype": "auto"},
    )
    experiment = new()
    experiment.run_fit(RFGridSearch(config, "SFT"), train_dataset=prompt_rows(24, 1))
    experiment.wait()
    assert experiment.run(1).state == "completed", experiment.run(1).traceback


def test_load_and_export_give_the_trained_model(new, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    experiment = fit(new(), grid(learning_rate=1e-2))
    experiment.wait()
    ids = torch.arange(12).view(1, 12)
    while_open = experiment.load(1)
    assert isinstance(while_open, PeftModel)
    with torch.no_grad():
        expected, base = while_open(ids).logits, tiny_model()(ids).logits
    assert not torch.allclose(expected, base)
    experiment.export(1, tmp_path / "adapter")
    experiment.export(1, tmp_path / "merged", merge=True)
    experiment.end()
    with torch.no_grad():
        assert torch.equal(experiment.load(1)(ids).logits, expected)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        assert torch.allclose(merged(ids).logits, expected, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "adapter").eos_token == "<eos>"
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    with pytest.raises(ConfigError, match="is not empty"):
        experiment.export(1, tmp_path / "merged")


def let_engine_fail(experiment, monkeypatch):
    def broken():
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("rf_notebook.engine.thread._RETRY_SECONDS", 0.05)
    monkeypatch.setattr(experiment.session.thread.engine, "turn", broken)
    experiment.session.thread.engine.mailbox.wake()
    until(lambda: not experiment.session.thread.is_alive)
    until(lambda: not experiment.session.thread._keeper.is_alive())  # noqa: SLF001 - the thread that keeps the lease


def test_after_a_failed_engine_the_same_cell_goes_on_and_one_mirror_follows(new, monkeypatch):
    experiment = fit(new(), grid())
    let_engine_fail(experiment, monkeypatch)
    fit(experiment, grid())
    assert experiment.wait()
    assert all(run.state is RunState.COMPLETED for run in experiment.runs)
    followers = [
        one.name
        for one in threading.enumerate()
        if one.name
        in (f"rf-mlflow-{experiment.experiment_name}", f"rf-engine-{experiment.experiment_name}")
    ]
    assert sorted(followers) == [
        f"rf-engine-{experiment.experiment_name}",
        f"rf-mlflow-{experiment.experiment_name}",
    ]
    experiment.end()


BAD_ARGUMENTS = [
    ({"train_dataset": "data.json"}, "train_dataset"),
    ({"train_dataset": []}, "train_dataset"),
    ({"train_dataset": [1, 2]}, "train_dataset"),
    ({"eval_dataset": "x"}, "eval_dataset"),
    ({"eval_dataset": []}, "eval_dataset"),
    ({"num_chunks": 13}, "num_chunks=13 does not fit: 24 examples in batches of 2 make 12"),
    ({"param_config": grid(bf16=True, use_cpu=False)}, "bf16"),
    (
        {"param_config": grid(gradient_accumulation_steps=12)},
        "2 x 12 accumulation steps make 1 optimizer steps",
    ),
]


@pytest.mark.parametrize(
    ("change", "sentence"), BAD_ARGUMENTS, ids=lambda v: str(v)[:40] if isinstance(v, str) else ""
)
def test_bad_arguments_are_refused_in_a_sentence_before_any_model_is_loaded(
    new, tmp_path, change, sentence
):
    if "bf16" in sentence and torch.cuda.is_available():
        change = {"execution": "fast"}
        sentence = "execution"

    def create(config):
        raise AssertionError("a model was loaded")

    given = {
        "param_config": grid(),
        "create_model_fn": create,
        "train_dataset": prompt_rows(24, 1),
        "eval_dataset": prompt_rows(6, 2),
        "num_chunks": 4,
        "seed": 1,
    }
    started = time.perf_counter()
    with pytest.raises(ConfigError) as refused:
        new().run_fit(**{**given, **change})
    assert time.perf_counter() - started < 0.1
    assert sentence in str(refused.value)
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_configs_that_cannot_go_with_the_data_are_refused(new):
    config = model()
    config.compute_metrics = len
    with pytest.raises(ConfigError, match="compute_metrics but run_fit has no eval_dataset"):
        new().run_fit(RFGridSearch(config, "SFT"), create_tiny, prompt_rows(24, 1))
    config = model()
    config.generation_config = {"max_new_tokens": 4}
    with pytest.raises(ConfigError, match="generation_config but no compute_metrics"):
        fit(new(), RFGridSearch(config, "SFT"))
    config = model()
    config.formatting_func = lambda row: row["question"]
    with pytest.raises(ConfigError, match="raised KeyError on train_dataset"):
        fit(new(), RFGridSearch(config, "SFT"))


def test_text_data_with_a_formatting_func_that_returns_text(new):
    config = model()
    config.formatting_func = lambda row: f"{row['prompt']} = {row['completion']}"
    config.training_args.completion_only_loss = False
    experiment = fit(new(), RFGridSearch(config, "SFT"))
    experiment.wait()
    assert experiment.run(1).state == "completed", experiment.run(1).traceback


def test_full_fine_tuning_trains_and_leaves_the_base_alone(new):
    config = model()
    config.peft_config = None
    experiment = fit(new(), RFGridSearch([config, model()], "SFT"))
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed", "completed"]
    loaded = experiment.load(1)
    assert not torch.equal(loaded.lm_head.weight, tiny_model().lm_head.weight)


def test_lora_of_several_kinds_beside_each_other(new):
    lora = List(
        [
            RFLoraConfig(r=4, target_modules="all-linear", use_dora=True),
            RFLoraConfig(
                r=8, target_modules=["q_proj"], use_rslora=True, modules_to_save=["lm_head"]
            ),
            RFLoraConfig(r=4, init_lora_weights="pissa", target_modules=["v_proj"]),
        ]
    )
    config = model()
    config.peft_config = lora
    experiment = fit(new(), RFGridSearch(config, "SFT"))
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed"] * 3, [
        run.traceback for run in experiment.runs
    ]
    for run in experiment.runs:
        experiment.load(run)


def test_a_secret_reaches_the_loader_and_no_file(new, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # the experiment's own database is looked through too
    token, password, seen = "hf_SecretSecretSecretSecret12", "pa55word-of-mine", []

    def create(config):
        seen.append((config["model_kwargs"]["token"], config["model_name"]))
        return create_tiny({})

    config = model(hub_token=token)
    config.model_name = f"https://me:{password}@host/base"
    config.model_kwargs = {"token": token}
    experiment = new()
    experiment.run_fit(RFGridSearch(config, "SFT"), create, prompt_rows(24, 1), num_chunks=3)
    experiment.clone(1, {"learning_rate": 2e-3}).result(timeout=60)
    experiment.end()
    assert seen[0] == (token, f"https://me:{password}@host/base")
    shown = (
        repr(experiment)
        + experiment.get_runs_info().to_csv()
        + repr([run.config for run in experiment.runs])
    )
    for text in (token, password):
        assert text not in shown
        for file in tmp_path.rglob("*"):
            if file.is_file():
                assert text.encode() not in file.read_bytes(), file


def test_sample_prompts_are_answered_at_each_boundary_and_change_no_figure(new):
    plain = fit(new("plain"), two())
    plain.end()
    experiment = fit(new("samples"), two(), sample_prompts=2)
    experiment.end()
    assert [curve(experiment, i) for i in (1, 2)] == [curve(plain, i) for i in (1, 2)]
    written = experiment.session.state.written
    assert {
        run_id: (event.samples, len(event.generations)) for run_id, event in written.items()
    } == {
        1: (24, 2),
        2: (24, 2),
    }
    own = fit(new("own"), two(), sample_prompts=["Where is my parcel?"])
    own.end()
    (answer,) = own.session.state.written[1].generations
    assert "Where is my parcel?" in answer.prompt
    assert (answer.asked or answer.prompt, answer.expected) == ("Where is my parcel?", "")
    rows = prompt_rows(6, 2)  # the evaluation data of ``fit``
    for row, one in zip(rows, written[1].generations, strict=False):
        assert one.asked or one.prompt == row["prompt"]
        assert one.expected == row["completion"]


def test_checkpointing_has_one_name_and_no_warning(new, recwarn):
    fit(new(), two()).end()
    assert not [w for w in recwarn if "gradient_checkpointing" in str(w.message)]


def test_every_tracker_that_transformers_knows_may_be_named():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in INTEGRATION_TO_CALLBACK:
        RFSFTConfig(report_to=name)
    RFSFTConfig(report_to=["wandb", "mlflow"])
    with pytest.raises(ConfigError, match="there is no such report_to; did you mean 'tensorboard'"):
        RFSFTConfig(report_to="tensorbord")


def test_the_table_of_runs_has_rapidfires_columns_beside_ours(new):
    experiment = fit(new(), grid(learning_rate=List([1e-3, 2e-3, 3e-3])), rows=60)
    until(lambda: experiment.run(1).steps > 0)
    assert set(experiment.get_runs_info().status) <= {"New", "Ongoing"}
    experiment.stop(2).result(timeout=30)
    clone = experiment.clone(1, {"learning_rate": 5e-4}, warm_start=True).result(timeout=30)
    experiment.end()
    info = experiment.get_runs_info().set_index("run_id")
    assert list(info.status) == ["Completed", "Stopped", "Completed", "Completed"]
    assert list(info.ended_by) == [
        "Epoch Completed",
        "Interactive Control",
        "Epoch Completed",
        "Epoch Completed",
    ]
    assert list(info.source) == ["Initial", "Initial", "Initial", "Interactive Control"]
    assert info.cloned_from[clone.id] == info.warm_started_from[clone.id] == 1
    assert info.completed_steps[1] == info.total_steps[1] == info.steps[1]
    assert (info.num_epochs_completed[1], info.num_chunks_visited_curr_epoch[1]) == (1, 0)
    assert info.estimated_runtime[1] > 0
    assert info.config[1]["training_args"]["learning_rate"] == 1e-3
    assert set(info.required_workers) == {1}
    assert set(info.chunk_offset) == {0}
    assert len(set(info.metric_run_id)) == 4
    assert all(isinstance(one, str) for one in info.metric_run_id)
