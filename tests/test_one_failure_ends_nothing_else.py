"""Whatever raises, wherever.

At most one run fails, the others train on, and the engine obeys what comes next.
"""

from __future__ import annotations

import errno
import functools
import importlib
import threading

import pytest

from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.core.errors import StorageFull, StoreError
from rf_notebook.engine.requests import SetPaused
from rf_notebook.testing.tiny import create_tiny, prompt_rows
from tests.experiment_world import LORA, TRAINING


class Boom(Exception):
    pass


ERRORS = {
    "exception": Boom("a failure of the test's"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "memory": MemoryError("no memory"),
    "io": OSError(errno.EACCES, "Permission denied"),
    "base": BaseException("not even an Exception"),
}

#: Where a library's, the disk's or our own code raises once: "module:attribute", or
#: "module:Class.attribute".
PLACES = [
    "rf_notebook.training.trainers:_model_for",
    "rf_notebook.training.trainers:Trainers.build",
    "rf_notebook.training.trainers:Trainers.modules_of",
    "rf_notebook.training.trainers:Trainers.plan",
    "rf_notebook.training.trainers:Trainers._peft_config",
    "rf_notebook.training.methods.sft:RunSFTTrainer._prepare_dataset",
    "rf_notebook.training.methods.base:RunTrainer.training_step",
    "rf_notebook.training.methods.base:RunTrainer.log",
    "rf_notebook.training.methods.base:RunTrainer._maybe_log_save_evaluate",
    "rf_notebook.training.methods.base:counters",
    "rf_notebook.training.divergence:Divergence.see_loss",
    "rf_notebook.training.divergence:Divergence.now",
    "rf_notebook.training.divergence:Divergence.end_window",
    "trl:SFTTrainer.compute_loss",
    "trl:SFTTrainer.evaluate",
    "trl:SFTTrainer.create_optimizer",
    "rf_notebook.training.run_files:_save_weights",
    "trl:SFTTrainer.get_train_dataloader",
    "torch:save",
    "torch.optim:AdamW.step",
    "torch.optim.lr_scheduler:LambdaLR.step",
    "transformers:TrainerState.save_to_json",
    "rf_notebook.training.run_files:save_run",
    "rf_notebook.training.run_files:save_file",
    "rf_notebook.training.run_files:get_peft_model_state_dict",
    "rf_notebook.store.folders:begin_folder",
    "rf_notebook.store.folders:BegunFolder.finish",
    "rf_notebook.store.folders:_manifest_of",
    "rf_notebook.store.folders:flush",
    "rf_notebook.store.folders:_weights_digest",
    "rf_notebook.store.folders:remove_folder",
    "pathlib:Path.rename",
    "rf_notebook.training.memory:own_bytes",
    "rf_notebook.training.memory:collect",
    "rf_notebook.training.memory:allocated_bytes",
    "rf_notebook.training.memory:reset_peak",
    "rf_notebook.training.building:need_of_trainer",
    "rf_notebook.training.resources:model_facts",
    "rf_notebook.training.at_boundary:sample_texts",
    "rf_notebook.training.at_boundary:texts_of",
    "rf_notebook.training.residency:Residency.use",
    "rf_notebook.training.residency:Residency.keep",
    "rf_notebook.training.parked:ParkedRun.end",
    "rf_notebook.training.parked:Gate.on_epoch_begin",
    "rf_notebook.training.parked:Gate.on_log",
    "rf_notebook.training.process_state:ProcessState.fresh",
    "rf_notebook.engine.loop:Engine.on_live",
    "rf_notebook.engine.results:superseded",
    "rf_notebook.engine.turns:place",
    "rf_notebook.engine.autopilot:Autopilot.missing",
    "rf_notebook.engine.publisher:Publisher.changed",
    "rf_notebook.tracking.experiment_log:ExperimentLog.take",
    "rf_notebook.tracking.mlflow_mirror:MlflowMirror.notify",
    "rf_notebook.tracking.mlflow_mirror:MlflowMirror.connect",
    "rf_notebook.tracking.mlflow_mirror:MlflowMirror._write",
]
#: What is bound when the experiment begins, or happens before a model is loaded.
EARLY = [
    "rf_notebook.engine.loop:Engine.on_live",
    "rf_notebook.tracking.experiment_log:ExperimentLog.take",
    *(place for place in PLACES if "mlflow_mirror" in place),
]
#: The same for joint steps.
JOINT_PLACES = [
    "rf_notebook.training.validation:fusibility_of",
    "rf_notebook.training.fused.joint_turns:hindrance",
    "rf_notebook.training.runner:KernelRunner._train_together",
    "rf_notebook.training.aside:Aside.__init__",
    "rf_notebook.training.fused.joint_turns:JointTurns._save",
    "rf_notebook.training.at_boundary:texts_of",
    "rf_notebook.training.active_run:ActiveRun.save_ahead",
    "rf_notebook.training.run_files:save_run",
    "rf_notebook.training.run_files:_on_host",
    "rf_notebook.training.run_files:save_file",
    "rf_notebook.store.folders:BegunFolder.finish",
    "rf_notebook.store.folders:_manifest_of",
    "rf_notebook.training.fused.joint_model:JointModel.__init__",
    "rf_notebook.training.fused.joint_model:JointModel.forward",
    "rf_notebook.training.fused.member:Member.attach",
    "rf_notebook.training.fused.member:Member.__init__",
    "rf_notebook.training.fused.adapters:AdapterBlock.leave",
    "rf_notebook.training.fused.updates:Updates.use",
]


def raise_once(monkeypatch, place, error):
    """Make a function raise at its next call.

    Returns whether it was called, as a list that is empty until then.
    """
    module, path = place.split(":")
    owner = importlib.import_module(module)
    *above, name = path.split(".")
    for part in above:
        owner = getattr(owner, part)
    own = (
        vars(owner)[name]
        if isinstance(owner, type) and name in vars(owner)
        else getattr(owner, name)
    )
    called = []
    function = own.__func__ if isinstance(own, classmethod) else own

    @functools.wraps(function)
    def raising(*args, **kwargs):
        if not called:
            called.append(place)
            raise error
        return function(*args, **kwargs)

    monkeypatch.setattr(
        owner, name, classmethod(raising) if isinstance(own, classmethod) else raising
    )
    return called


def search(**more):
    arguments = RFSFTConfig(**TRAINING | {"learning_rate": List([1e-3, 3e-3]), "logging_steps": 1})
    return RFGridSearch(
        RFModelConfig(
            model_name="tiny", peft_config=RFLoraConfig(**LORA), training_args=arguments, **more
        ),
        "SFT",
    )


def begin(experiment, given=None, **options):
    rows = prompt_rows(8, 1), prompt_rows(2, 2)
    options = {"num_chunks": 4, "sample_prompts": 1, "display": False} | options
    experiment.run_fit(
        given or search(), options.pop("create_model", create_tiny), *rows, **options
    )


def assert_only_one_may_have_failed(experiment, error=None):
    assert experiment.wait(timeout=120)
    assert experiment.session.thread.is_alive, experiment.session.thread.error
    failed = [run for run in experiment.runs if run.state == "failed"]
    assert len(failed) <= 1
    assert {run.state for run in experiment.runs} - {"failed"} == {"completed"}
    if failed and error is not None:
        assert type(error).__name__ in failed[0].error
    # and what comes next is obeyed
    healthy = next(run.id for run in experiment.runs if run.state == "completed")
    clone = experiment.clone(healthy).result(timeout=60)
    assert experiment.wait(timeout=120)
    assert clone.state == "completed"
    experiment.end()


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch):
    monkeypatch.setattr("rf_notebook.training.generation._NEW_TOKENS", 4)


@pytest.fixture(autouse=True)
def _every_run_is_large(monkeypatch):
    """So that its memory is given back as soon as it ends."""
    monkeypatch.setattr("rf_notebook.training.resources._WORTH_COLLECTING", 0)


@pytest.fixture(scope="module", autouse=True)
def _imported():
    importlib.import_module("rf_notebook.training.runner")


@pytest.mark.parametrize("place", PLACES)
def test_an_error_at_any_place_fails_at_most_one_run(new, monkeypatch, place):
    error = list(ERRORS.values())[PLACES.index(place) % len(ERRORS)]
    experiment, is_patched = new(), threading.Event()

    def create(config):
        is_patched.wait(60)
        return create_tiny(config)

    with monkeypatch.context() as patched:
        if place in EARLY:
            called = raise_once(patched, place, error)
            begin(experiment, policy=Watching(), create_model=create)
        else:
            begin(experiment, policy=Watching(), create_model=create)
            called = raise_once(patched, place, error)
        is_patched.set()
        experiment.wait(timeout=120)
        if not called and "remove" not in place:
            pytest.fail(f"{place} is not reached")
    assert_only_one_may_have_failed(experiment, error)


@pytest.mark.parametrize("place", JOINT_PLACES)
def test_an_error_at_any_place_of_joint_steps_fails_at_most_one_run(new, monkeypatch, place):
    error = [*ERRORS.values()][JOINT_PLACES.index(place) % len(ERRORS)]
    experiment = new()
    with monkeypatch.context() as patched:
        called = raise_once(patched, place, error)
        begin(experiment, execution="fused")
        experiment.wait(timeout=120)
        assert called, f"{place} is not reached"
    assert_only_one_may_have_failed(experiment, error)


@pytest.mark.parametrize("kind", ERRORS)
def test_a_joint_backward_that_raises_fails_the_runs_that_were_in_it_and_the_engine_lives(
    new, monkeypatch, kind
):
    experiment = new()
    with monkeypatch.context() as patched:
        called = raise_once(
            patched, "rf_notebook.training.fused.joint_model:JointModel.backward", ERRORS[kind]
        )
        begin(experiment, execution="fused")
        assert experiment.wait(timeout=120)
        assert called
    assert {run.state for run in experiment.runs} == {"failed"}
    assert all(type(ERRORS[kind]).__name__ in run.error for run in experiment.runs)
    clone = experiment.clone(1).result(timeout=60)
    assert experiment.wait(timeout=120)
    assert clone.state == "completed"


class Watching:
    """A policy that decides nothing."""

    name = "watching"

    def decide(self, view):
        return []


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


@pytest.mark.parametrize("kind", ERRORS)
def test_metrics_of_the_users_fail_their_run(new, kind):
    config = search(compute_metrics=raising(ERRORS[kind]))
    experiment = new()
    begin(experiment, [config, search()])
    assert experiment.wait(timeout=120)
    assert [run.state for run in experiment.runs] == ["failed", "failed", "completed", "completed"]
    assert type(ERRORS[kind]).__name__ in experiment.run(1).error
    assert experiment.session.thread.is_alive


@pytest.mark.parametrize("kind", ERRORS)
def test_a_policy_that_raises_is_set_aside(new, kind):
    class Raising(Watching):
        decide = staticmethod(raising(ERRORS[kind]))

    experiment = new()
    begin(experiment, policy=Raising())
    assert_only_one_may_have_failed(experiment)
    assert any("was set aside" in text for text in experiment.messages)
    assert all(run.state == "completed" for run in experiment.runs)


@pytest.mark.parametrize("kind", ERRORS)
def test_what_a_request_raises_is_its_answer(new, kind, monkeypatch):
    experiment = new()
    begin(experiment)
    engine = experiment.session.engine
    monkeypatch.setattr(engine, "pause", raising(ERRORS[kind]))
    future = engine.mailbox.submit(SetPaused(paused=True))
    assert future.exception(timeout=60) is ERRORS[kind]
    assert_only_one_may_have_failed(experiment)


@pytest.mark.parametrize("kind", ERRORS)
def test_a_loader_that_raises_fails_its_runs_and_no_others(new, kind):
    def create(config):
        if config["model_name"] == "tiny":
            return create_tiny(config)
        raise ERRORS[kind]

    other = search()
    other.configs.model_name = "other"
    experiment = new()
    begin(experiment, [other, search()], create_model=create)
    assert experiment.wait(timeout=120)
    assert [run.state for run in experiment.runs] == ["failed", "failed", "completed", "completed"]
    assert experiment.session.thread.is_alive


@pytest.mark.parametrize(
    "error",
    [StorageFull("no room"), StoreError("disk I/O error"), StoreError("the database is locked")],
    ids=lambda error: str(error),
)
def test_while_the_disk_takes_no_record_the_turn_waits(new, monkeypatch, error):
    from rf_notebook.engine import thread

    monkeypatch.setattr(thread, "_ROOM_POLL_SECONDS", 0.05)
    experiment = new()
    begin(experiment)
    called = raise_once(monkeypatch, "rf_notebook.store.sqlite:SqliteStore.append", error)
    assert_only_one_may_have_failed(experiment)
    assert called
    assert all(run.state == "completed" for run in experiment.runs)


@pytest.mark.parametrize("execution", ["exact", "fused"])
@pytest.mark.parametrize(
    ("place", "error"),
    [
        (
            "torch:save",
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        ),
        (
            "rf_notebook.training.run_files:save_file",
            RuntimeError("I/O error: No space left on device (os error 28)"),
        ),
        (
            "transformers:TrainerState.save_to_json",
            OSError(errno.ENOSPC, "No space left on device"),
        ),
        ("rf_notebook.store.folders:flush", OSError(errno.EDQUOT, "Disk quota exceeded")),
        ("rf_notebook.store.folders:_manifest_of", OSError(errno.EIO, "Input/output error")),
    ],
)
def test_while_the_disk_takes_no_checkpoint_the_turn_waits(
    new, monkeypatch, place, error, execution
):
    from rf_notebook.engine import thread
    from rf_notebook.store import folders

    monkeypatch.setattr(thread, "_ROOM_POLL_SECONDS", 0.05)
    if "unexpected pos" in str(error):  # which does not say so: whether the disk is full is tried
        monkeypatch.setattr(folders, "_PROBE_BYTES", 1 << 62)
        monkeypatch.setattr(
            folders, "bytes", lambda size: raising(OSError(errno.ENOSPC, "full"))(), raising=False
        )
    experiment = new()
    begin(experiment, execution=execution)
    called = raise_once(monkeypatch, place, error)
    assert_only_one_may_have_failed(experiment)
    assert called
    assert all(run.state == "completed" for run in experiment.runs)
