"""A run with NaN or infinite losses or gradients is seen as such.

Its log is plain TRL's otherwise.
"""

from __future__ import annotations

import functools
import math

import pytest
import torch
import trl

from rf_notebook.core.events import Noted
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.planning.fusion import Execution
from rf_notebook.results.metrics import best_runs
from rf_notebook.store.memory import MemoryStore
from rf_notebook.training.divergence import Divergence
from rf_notebook.training.process_state import isolated
from tests.exactness import plain_trl
from tests.exactness.cases import CASES, data
from tests.exactness.harness import WatchedRunner, engine_over, run_config, turn_all

STEP = 3


def test_a_window_tells_its_bad_loss_and_the_first_bad_step():
    seen = Divergence()
    for step, loss in ((1, 2.0), (2, math.inf), (2, 1.0), (3, math.nan)):
        seen.see_loss(torch.tensor(loss), step)
    assert (seen.since, seen.now()) == (None, 2)
    assert math.isnan(seen.end_window())
    assert (seen.since, seen.has_bad_loss) == (2, True)
    seen.see_loss(torch.tensor(math.inf), 4)
    assert seen.end_window() == math.inf
    assert seen.since == 2, "it still is what it was"
    seen.see_loss(torch.tensor(1.0), 5)
    assert seen.now() == 2, "the window is not over"
    assert seen.end_window() == 0.0
    assert seen.since is None
    assert seen.has_bad_loss


def test_gradients_alone_count():
    seen = Divergence()
    seen.see_loss(torch.tensor(1.0), 7)
    seen.see_gradients(torch.tensor(math.nan), 7)
    seen.see_gradients(None, 8)
    assert seen.end_window() == 0.0
    assert seen.since == 7


@pytest.mark.parametrize("seen_so_far", [0, 1, 2])
def test_what_is_seen_goes_through_a_checkpoint(seen_so_far, tmp_path):
    seen = Divergence()
    for step, loss in enumerate([1.0, math.nan][:seen_so_far], start=1):
        seen.see_loss(torch.tensor(loss), step)
    torch.save(seen.as_plain(), tmp_path / "seen.pt")
    again = Divergence()
    again.restore(torch.load(tmp_path / "seen.pt", weights_only=True), torch.device("cpu"))
    assert again.now() == seen.now()
    assert repr(again.end_window()) == repr(seen.end_window())


def injected(trainer, own, factor):
    """The trainer's loss, multiplied from step 3 on."""
    return lambda *args, **kwargs: (
        own(*args, **kwargs) * (factor if trainer.state.global_step + 1 >= STEP else 1.0)
    )


def with_gradients_injected(trainer, own, factor):
    """A training step after which one weight's gradients are multiplied, from step 3 on."""
    weight = next(
        p for n, p in trainer.model.named_parameters() if p.requires_grad and "lora_B" in n
    )

    def training_step(*args, **kwargs):
        loss = own(*args, **kwargs)
        if trainer.state.global_step + 1 >= STEP:
            weight.grad.mul_(factor)
        return loss

    return training_step


class Diverging(WatchedRunner):
    """Run 2 is the one that diverges."""

    factor, in_gradients = math.nan, False

    def build(self, request):
        built = super().build(request)
        held = self.runs.get(request.run_id)
        if held is not None and request.run_id == 2 and request.continue_from is None:
            trainer = held.trainer
            if self.in_gradients:
                trainer.training_step = with_gradients_injected(
                    trainer, trainer.training_step, self.factor
                )
            else:
                trainer.compute_loss = injected(trainer, trainer.compute_loss, self.factor)
        return built


def engine_of(folder, name, execution=Execution.EXACT, **options):
    runner = type("Runner", (Diverging,), options)
    objects = Objects()
    configs = [run_config(one, objects) for one in (name, name)]
    rows = data(CASES[name].data)
    return engine_over(
        folder, rows, configs, objects, num_chunks=2, runner=runner, execution=execution
    )


def plain_history(name, folder, monkeypatch, factor):
    """What plain TRL logs under the same injection."""
    trainer_class = {"SFT": trl.SFTTrainer, "DPO": trl.DPOTrainer}[CASES[name].method]
    own, made = trainer_class.compute_loss, {}

    def compute_loss(self, *args, **kwargs):
        if id(self) not in made:
            made[id(self)] = injected(self, functools.partial(own, self), factor)
        return made[id(self)](*args, **kwargs)

    monkeypatch.setattr(trainer_class, "compute_loss", compute_loss)
    with isolated():
        plain_trl.train(name, folder)
    monkeypatch.undo()
    return torch.load(folder / f"{name}.pt", weights_only=False)["history"]


def log_of(engine, run_id):
    """What was logged, by step, without what evaluations at boundaries add."""
    return {p.step: dict(p.metrics) for p in engine.state.record(run_id).all_points()}


@pytest.mark.oldest
def test_what_diverged_is_no_winner_but_its_log_is_plain_trls(tmp_path, monkeypatch):
    """Loss NaN from step 3 on.

    Only what the loss is called differs, for transformers logs 0 in its place.
    """
    (tmp_path / "plain").mkdir()
    history = plain_history("sft_among_others", tmp_path / "plain", monkeypatch, factor=math.nan)
    engine = engine_of(tmp_path, "sft_among_others", factor=math.nan)
    turn_all(engine)
    found = log_of(engine, 2)
    assert len(history) > 5
    filtered = 0
    for logged in history:
        step = logged["step"]
        for metric, value in logged.items():
            if metric in ("step", "epoch") or value is None:
                continue
            if metric in ("loss", "train_loss") and step >= STEP:
                assert math.isnan(found[step][metric])
                filtered += math.isfinite(value)
            elif metric in found[step]:
                assert repr(found[step][metric]) == repr(float(value)), (step, metric)
    assert filtered, "plain TRL showed numbers there"


@pytest.mark.parametrize("execution", [Execution.EXACT, Execution.FUSED])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sft_among_others", {"factor": math.nan}),
        ("dpo_sigmoid", {"factor": math.inf}),
        ("sft_among_others", {"factor": math.nan, "in_gradients": True}),
    ],
)
def test_a_diverged_run_is_called_so_and_its_peer_is_untouched(tmp_path, name, options, execution):
    engine = engine_of(tmp_path, name, execution, **options)
    turn_all(engine)
    record = engine.state.record(2)
    assert (record.state, record.progress.diverged_at) == (RunState.DIVERGED, STEP)
    assert engine.state.record(1).state is RunState.COMPLETED
    notes = [one.event.text for one in engine.state.notes if isinstance(one.event, Noted)]
    assert [text for text in notes if "diverged" in text] == [
        "run 2 diverged at step 3: its loss or gradients are NaN or infinite"
    ]
    assert set(best_runs(engine.state, "loss").values()) == {1}
    assert set(best_runs(engine.state, "learning_rate").values()) == {1}, (
        "never, by whatever metric"
    )
    last = log_of(engine, 2)
    assert not math.isfinite(last[max(step for step in last if "loss" in last[step])]["loss"])


@pytest.mark.oldest
def test_a_kill_forgets_nothing_of_it(tmp_path):
    """The checkpoint's window holds the bad step although nothing was logged since."""
    store, objects = MemoryStore(), Objects()
    name = "sft_logged_every_seventh_step"
    config = run_config(name, objects)
    rows = data(CASES[name].data)

    def opened():
        more = {"num_chunks": 8, "runner": Diverging, "store": store}
        return engine_over(tmp_path, rows, [config, config], objects, **more)

    engine = opened()
    while engine.state.record(2).progress.steps < STEP:
        engine.turn()
    before = engine.state.record(2).progress
    assert before.diverged_at == STEP
    assert not any(
        "loss" in p.metrics and p.step >= STEP for p in engine.state.record(2).all_points()
    )
    again = opened()
    turn_all(again)
    record = again.state.record(2)
    assert record.progress.diverged_at == STEP
    assert math.isnan(log_of(again, 2)[7]["loss"]), "the window that was cut is shown whole"
