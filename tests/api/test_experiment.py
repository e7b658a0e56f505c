"""What a user does with an Experiment, whoever trains."""

from __future__ import annotations

import asyncio
import copy
import sys
import threading
import time
import types

import pandas as pd
import pytest

from rf_notebook import ConfigError, IllegalOperation, UnknownRun
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFSFTConfig
from rf_notebook.core.run import RunState
from tests.api.world import create, curve, fit, grid, rows, two, until


def test_run_fit_returns_at_once_and_wait_waits(new):
    experiment = new()
    fit(experiment, two())
    assert experiment.wait(timeout=0.001) is False
    assert experiment.wait() is True
    assert [run.state for run in experiment.runs] == [RunState.COMPLETED] * 2
    experiment.end()


def test_results_and_runs_are_tables(new):
    experiment = fit(new(), two())
    experiment.end()
    results = experiment.get_results()
    assert list(results.columns[:5]) == ["run_id", "step", "samples", "epoch", "chunk"]
    assert set(results.run_id) == {1, 2}
    boundary = results[results.step == 4]
    assert boundary.eval_loss.notna().all()
    assert list(boundary.samples) == [8, 8]
    info = experiment.get_runs_info()
    assert list(info.run_id) == [1, 2]
    assert list(info["training_args.learning_rate"]) == [1e-3, 3e-3]
    assert experiment.get_log_file_path().read_text().count("completed") == 2


def test_best_is_by_the_latest_value_and_unknown_metrics_are_named(new):
    experiment = fit(new(), two())
    experiment.wait()
    losses = {run.id: run.metrics["eval_loss"] for run in experiment.runs}
    assert experiment.best().id == min(losses, key=losses.get)
    assert experiment.best("eval_loss", "max").id == max(losses, key=losses.get)
    with pytest.raises(
        UnknownRun, match=r"no run has the metric 'bleu' yet; there are: .*eval_loss"
    ):
        experiment.best("bleu")


def test_operations_give_receipts_with_handles_and_several_at_once(new):
    experiment = fit(new(), grid(learning_rate=List([1e-3, 2e-3, 3e-3])), count=90)
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
    names = [type(operation.operation).__name__ for operation, _ in experiment.operations]
    assert names == ["StopRun", "StopRun", "ResumeRun", "CloneRun", "DeleteRun"]
    receipt = experiment.resume(1)
    with pytest.raises(IllegalOperation, match="cannot resume run 1: it is completed"):
        receipt.result(timeout=30)
    assert repr(receipt).startswith("<Receipt: refused: cannot resume")


def test_a_clone_with_bad_edits_is_refused_where_it_is_typed(new):
    experiment = fit(new(), grid())
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        experiment.clone(1, {"learnin_rate": 1})
    with pytest.raises(UnknownRun, match="there is no run 7"):
        experiment.stop(7)
    with pytest.raises(ConfigError, match="is not a run"):
        experiment.stop("best")
    experiment.wait()
    assert len(experiment.runs) == 1


def test_operations_need_an_open_experiment(new):
    experiment = fit(new(), grid())
    experiment.end()
    with pytest.raises(IllegalOperation, match="not open for training here; call run_fit"):
        experiment.stop(1)
    experiment.end()  # ending twice is no error
    assert experiment.wait()


def test_the_same_cells_again_change_nothing_and_return_the_results_at_once(new):
    first = fit(new(), two())
    first.end()
    before = first.get_results()
    again = new()
    assert len(again.runs) == 2
    created = []

    def create(config):
        created.append(config)
        return create({})

    again.run_fit(two(), create, rows(24), rows(6), num_chunks=3, seed=1)
    assert again.wait(timeout=5)
    pd.testing.assert_frame_equal(again.get_results(), before)
    assert not created, "nothing is loaded to find out that nothing is to be done"
    assert again.clone(1, {"seed": 5}).result(timeout=30).id == 3
    assert again.wait()
    again.end()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_chunks": 4}, "num_chunks was 3 and is 4"),
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"count": 30}, "train_dataset was 24 rows .* and is 30 rows"),
        (
            {"search": grid(learning_rate=7e-3)},
            r"run 1: training_args.learning_rate was 0.001 and is 0.007",
        ),
        ({"search": two()}, "1 given configs are not recorded"),
    ],
)
def test_other_arguments_under_a_recorded_name_are_told_and_refused(new, change, sentence):
    fit(new(), grid()).end()
    options = {"search": grid(), **change}
    with pytest.raises(ConfigError, match=sentence):
        fit(new(), options.pop("search"), **options)


def test_extend_adds_new_configs_as_new_runs(new):
    fit(new(), grid()).end()
    again = fit(new(), two(), extend=True)
    again.wait()
    assert [run.config["training_args"]["learning_rate"] for run in again.runs] == [1e-3, 3e-3]
    assert all(run.state == "completed" for run in again.runs)
    again.end()


def with_tokens(*tokens):
    template = grid().templates()[0]
    made = []
    for token in tokens:
        template.model_kwargs = {"token": token}
        made.append(copy.deepcopy(template))
    return RFGridSearch(made, "SFT")


def test_a_search_with_several_secrets_is_continued_in_any_order_and_with_a_renewed_one(new):
    fit(new(), with_tokens("dear", "cheap")).end()
    again = fit(new(), with_tokens("cheap", "dear"))
    assert [again.session.objects.get_secret(name) for name in ("token", "token#2")] == [
        "dear",
        "cheap",
    ]
    again.end()
    renewed = fit(new(), with_tokens("renewed", "cheap"))
    assert [renewed.session.objects.get_secret(name) for name in ("token", "token#2")] == [
        "renewed",
        "cheap",
    ]
    renewed.end()
    assert len(renewed.runs) == 2


def test_cancel_keeps_everything_and_the_rest_follows_later(new):
    alone = fit(new("alone"), grid(), count=60)
    alone.end()
    experiment = fit(new(), grid(), count=60)
    until(lambda: experiment.run(1).steps >= 7)
    experiment.cancel_current()
    steps = experiment.run(1).steps
    assert 7 <= steps < 30
    assert [p for p, _ in curve(experiment, 1)][-1] <= steps
    again = fit(new(), grid(), count=60)
    again.wait()
    assert curve(again, 1) == curve(alone, 1)
    again.end()


def test_wait_async_lets_other_coroutines_go_on(new):
    experiment = fit(new(), grid(), count=90)

    async def both():
        ticks = 0
        waiting = asyncio.ensure_future(experiment.wait_async())
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return ticks, await waiting

    ticks, done = asyncio.run(both())
    assert done
    assert ticks > 5


@pytest.mark.parametrize("how", ["num_shards", "fifth positional", "num_chunks"])
def test_chunks_may_be_called_shards(new, how):
    experiment = new()
    data = rows(24), rows(6)
    if how == "fifth positional":
        experiment.run_fit(grid(), create, *data, 2, 42)
    else:
        experiment.run_fit(grid(), create, *data, **{how: 2})
    experiment.wait()
    assert experiment.session.state.record(1).progress.chunks == 2


def let_engine_fail(experiment, monkeypatch):
    def broken():
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("rf_notebook.engine.thread._RETRY_SECONDS", 0.05)
    monkeypatch.setattr(experiment.session.thread.engine, "turn", broken)
    experiment.session.thread.engine.mailbox.wake()
    until(lambda: not experiment.session.thread.is_alive)
    until(lambda: not experiment.session.thread._keeper.is_alive())  # noqa: SLF001 - the thread that keeps the lease


def test_a_failed_engine_is_told_to_whoever_waits(new, monkeypatch):
    experiment = fit(new(), grid())
    experiment.wait()
    let_engine_fail(experiment, monkeypatch)
    with pytest.raises(RuntimeError, match="the sky fell"):
        experiment.wait()
    with pytest.raises(RuntimeError, match="the sky fell"):
        experiment.end()


def test_two_experiments_do_not_train_in_one_kernel_at_once(new):
    first = fit(new("first"), grid(), count=200)
    with pytest.raises(IllegalOperation, match="experiment 'first' is training in this kernel"):
        fit(new("second"), grid())
    first.cancel_current()
    second = fit(new("second"), grid())
    assert second.wait()


def test_a_kernel_with_unsloth_is_refused_before_anything_is_loaded(new, monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", types.ModuleType("unsloth"))
    experiment = new()
    with pytest.raises(ConfigError, match=r"would not be those of plain TRL\. Restart the kernel"):
        fit(experiment, grid())
    assert not experiment.runs


BAD_ARGUMENTS = [
    ({"param_config": None}, "param_config"),
    ({"param_config": {"learning_rate": 1}}, "param_config"),
    ({"param_config": []}, "has no configs"),
    ({"create_model_fn": "tiny"}, "create_model_fn"),
    ({"create_model_fn": lambda: None}, "must take one argument"),
    ({"create_model_fn": lambda a, b: None}, "must take one argument"),
    ({"train_dataset": None}, "train_dataset"),
    ({"num_chunks": 0}, "num_chunks"),
    ({"num_chunks": "4"}, "num_chunks"),
    ({"num_chunks": True}, "num_chunks"),
    ({"num_chunks": 2, "num_shards": 3}, "num_shards"),
    ({"num_shards": -1}, "num_chunks"),
    ({"num_gpus": 2}, "this machine has cpu."),
    ({"num_gpus": 0}, "set use_cpu=True"),
    ({"seed": -1}, "seed"),
    ({"seed": "42"}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"data_seed": 1.5}, "data_seed"),
    ({"execution": "fast"}, "execution"),
    ({"keep": "everything"}, "keep"),
    ({"sample_prompts": -1}, "give up to 20 texts"),
    ({"price_per_hour": "2 euros"}, "give what an hour of one device costs"),
    ({"price_per_hour": -1}, "give what an hour of one device costs"),
    ({"devices": ["cuda:0", "cuda:0"]}, "give each GPU once"),
    ({"devices": ["cpu", "cuda:0"]}, "give GPUs or CPUs"),
    ({"devices": 2}, "this machine has cpu."),
    ({"devices": 0}, "between 1 and 128"),
    ({"devices": True}, "give a list such as"),
    ({"devices": []}, "give a list such as"),
    ({"devices": [("cuda:0", "cuda:1"), "cuda:2"]}, "give each worker as many devices"),
    ({"devices": [("cuda:0", "cuda:1"), ("cuda:1", "cuda:2")]}, "give each GPU once"),
    ({"devices": [("cuda:0", "cpu")]}, "give GPUs or CPUs"),
    ({"devices": [()]}, "give each worker as many devices"),
    ({"devices": [("cuda:0", 1)]}, "a device is 'cpu' or 'cuda:0'"),
    ({"devices": "all"}, "a device is 'cpu' or 'cuda:0'"),
    ({"devices": ["gpu"]}, "a device is 'cpu' or 'cuda:0'"),
    ({"devices": [0]}, "a device is 'cpu' or 'cuda:0'"),
    ({"policy": "halving"}, "is not a policy"),
    (
        {"param_config": grid(eval_strategy="steps", eval_steps=2), "eval_dataset": None},
        "eval_strategy='steps'",
    ),
    (
        {
            "param_config": RFGridSearch(RFModelConfig(training_args=RFSFTConfig()), "SFT"),
            "create_model_fn": None,
        },
        "model_name",
    ),
]


@pytest.mark.parametrize(
    ("change", "sentence"), BAD_ARGUMENTS, ids=lambda v: str(v)[:40] if isinstance(v, str) else ""
)
def test_bad_arguments_are_refused_in_a_sentence_and_nothing_is_written(
    new, tmp_path, change, sentence
):
    given = {
        "param_config": grid(),
        "create_model_fn": create,
        "train_dataset": rows(24),
        "eval_dataset": rows(6),
        "num_chunks": 4,
        "seed": 1,
    }
    with pytest.raises(ConfigError) as refused:
        new().run_fit(**{**given, **change})
    assert sentence in str(refused.value)
    assert not list(tmp_path.iterdir()), "nothing was written"


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a" * 101, None, 5, ".hidden", "tail."])
def test_impossible_names_are_refused(tmp_path, name):
    from rf_notebook import Experiment

    with pytest.raises(ConfigError, match="experiment_name"):
        Experiment(name, experiment_path=tmp_path)
    with pytest.raises(ConfigError, match="mode='evals'"):
        Experiment("a", mode="evals")
    assert not list(tmp_path.iterdir())


def test_pause_stops_all_turns_and_no_run_and_resume_without_a_run_goes_on(new):
    experiment = fit(new(), two(num_train_epochs=30))
    until(lambda: experiment.run(1).steps >= 1)
    experiment.pause().result(30)
    steps = [run.steps for run in experiment.runs]
    assert experiment.wait(timeout=0.5) is False
    assert [run.steps for run in experiment.runs] == steps
    assert all(run.state in ("queued", "running") for run in experiment.runs)
    experiment.resume().result(30)
    until(lambda: [run.steps for run in experiment.runs] != steps)


def test_a_paused_experiment_gives_the_figures_of_one_that_was_not(new, tmp_path):
    plain = fit(new("plain"), two())
    plain.end()
    experiment = fit(new("paused"), two(), count=24)
    experiment.pause().result(30)
    experiment.resume().result(30)
    experiment.end()
    assert [curve(experiment, i) for i in (1, 2)] == [curve(plain, i) for i in (1, 2)]


def test_the_launching_cell_run_again_attaches_to_the_experiment_that_trains(new, tmp_path):
    experiment = fit(new("same"), two(num_train_epochs=30))
    again = new("same")
    assert again is experiment
    fit(again, two(num_train_epochs=30))
    assert len(again.runs) == 2
    with pytest.raises(ConfigError, match="set extend=True"):
        fit(again, two(num_train_epochs=29))
    fit(again, two(num_train_epochs=30, weight_decay=List([0.0, 0.1])), extend=True)
    assert len(again.runs) > 2
    assert again.run(3).state in ("queued", "running")
    experiment.cancel_current()
    assert new("same") is not experiment


def test_a_launching_cell_that_is_refused_sets_no_policy_to_work(new):
    asked = []

    class Watching:
        name = "watching"

        def decide(self, view):
            asked.append(view)
            return []

    experiment = fit(new(), two(num_train_epochs=8))
    with pytest.raises(ConfigError, match="recorded with other arguments"):
        fit(experiment, two(num_train_epochs=29), policy=Watching())
    experiment.end()
    assert not asked
    watched = new("watched")
    fit(watched, two(num_train_epochs=2), policy=Watching()).end()
    assert asked


@pytest.mark.parametrize("given", [-1, 21, "text", [1], True])
def test_impossible_sample_prompts_are_refused(new, given):
    with pytest.raises(ConfigError, match="give up to 20 texts"):
        fit(new(), two(), sample_prompts=given)


def test_a_figure_for_export(new):
    experiment = fit(new(), two())
    experiment.end()
    figure = experiment.figure("loss", x="epoch", smoothing=0.3)
    assert [trace.name for trace in figure.data] == ["run 1", "run 2"]
    with pytest.raises(ConfigError, match="x is one of"):
        experiment.figure("loss", x="hour")


def test_two_threads_that_look_at_a_record_at_once_take_each_event_once(new, monkeypatch):
    fit(new("read"), two()).end()
    expected = new("read").get_results()
    experiment = new("read")
    experiment.session.state.__init__()
    read = experiment.session.store.read

    def slow(after=0):
        found = read(after=after)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(experiment.session.store, "read", slow)
    threads = [threading.Thread(target=experiment.session.refresh) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pd.testing.assert_frame_equal(experiment.get_results(), expected)
    assert len(experiment.session.state.turns) == 6


@pytest.mark.parametrize(("gpus", "is_told"), [(0, False), (1, False), (2, True)])
def test_where_several_gpus_are_visible_and_one_is_used_a_message_says_so(
    new, backend, gpus, is_told
):
    backend.gpus = gpus
    experiment = fit(new(), two())
    told = [one.event.text for one in experiment.session.state.notes]
    assert any("devices='auto') divides them" in text for text in told) == is_told, told
