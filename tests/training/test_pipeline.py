"""Who goes on in a pipeline, and who is under way at once."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import pytest
from torch import nn

from rf_notebook.training import pipeline
from rf_notebook.training.device import spread_over
from rf_notebook.training.parked import ParkedStatus
from rf_notebook.training.pipeline import OthersTurn, Pipeline, side_by_side


class Run:
    """Waits for these requests in turn."""

    is_quiet = True

    def __init__(self, name, requests, log):
        self.name, self._requests, self.log = name, iter(requests), log
        self.status, self.request = ParkedStatus.PARKED, None

    def begin_jointly(self, until):
        pass

    def go_on(self):
        self.log.append(self.name)
        self.request = next(self._requests, None)
        self.status = ParkedStatus.WAITING if self.request else ParkedStatus.PARKED


def ready(*, is_short=False):
    return OthersTurn(lambda: True, is_short)


def busy():
    return OthersTurn(lambda: False)


def order(**requests):
    """In which order runs go on that wait for these."""
    log = []
    lanes = []
    for name, waits in requests.items():
        lanes.append(pipeline.Lane(Run(name, waits, log), None))
    Pipeline(lanes).advance(dict.fromkeys(lanes, 1))
    return "".join(log)


def test_all_begin_and_then_whoever_stood_longest_goes_on():
    assert order(a=[ready(), ready()], b=[ready()], c=[ready()]) == "abcabca"


def test_one_that_would_wait_lets_those_go_first_that_need_not():
    assert order(a=[busy()], b=[ready(), ready()], c=[ready()]) == "abcbcba", (
        "a waits once nobody else can do anything"
    )


def test_one_that_queues_a_backward_goes_first():
    assert order(a=[ready(), ready()], b=[ready(is_short=True)], c=[ready()]) == "abcbaca"


def test_where_all_would_wait_the_one_that_stood_longest_does():
    assert order(a=[busy(), busy()], b=[busy()]) == "ababa"


# ---- who is under way at once


def parts(count, *, room=1, free=None, switches=lambda number: "same", monkeypatch):
    runs = {
        number: SimpleNamespace(
            room=room, parked=SimpleNamespace(state=SimpleNamespace(switches=switches(number)))
        )
        for number in range(count)
    }
    requests = [SimpleNamespace(run_id=number) for number in range(count)]
    gpus = () if free is None else ("cuda:0", "cuda:1")
    monkeypatch.setattr(pipeline, "gpus_of_runs", lambda: gpus)
    monkeypatch.setattr(pipeline.memory, "free_bytes", lambda _gpu: free)
    spread_over(2)
    try:
        some = side_by_side(requests, runs)
        return [[one.run_id for one in part] for part in some]
    finally:
        spread_over(1)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1]), (4, [4]), (5, [3, 2]), (8, [4, 4]), (9, [3, 3, 3])], ids=str
)
def test_two_a_stage_are_under_way_in_even_parts(count, expected, monkeypatch):
    found = parts(count, monkeypatch=monkeypatch)
    assert [len(part) for part in found] == expected
    assert list(itertools.chain(*found)) == list(range(count))


def test_no_more_than_have_room(monkeypatch):
    assert parts(4, room=3, free=4, monkeypatch=monkeypatch) == [[0, 1], [2, 3]]
    assert parts(2, room=9, free=1, monkeypatch=monkeypatch) == [[0], [1]], "each is tried"


def test_runs_with_other_numeric_switches_take_turns(monkeypatch):
    found = parts(5, switches=lambda number: number % 2, monkeypatch=monkeypatch)
    assert found == [[0, 2, 4], [1, 3]]


# ---- backwards


class Waiting:
    """A run's side: others get their turn in ``wait_for``."""

    def __init__(self, backward, meanwhile, model):
        self.wait_for = meanwhile
        accelerator = SimpleNamespace(backward=backward, unwrap_model=lambda given: given)
        self.trainer = SimpleNamespace(accelerator=accelerator, model=model)


def backward_of(own, meanwhile, *, computes_again=False):
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].gradient_checkpointing = computes_again
    run = Waiting(own, meanwhile, model)
    pipeline.Lane(run, pipeline.ThreadPoolExecutor(1)).attach()
    return run.trainer.accelerator.backward


def test_others_go_on_while_a_backward_is_queued():
    began, goes_on, seen = threading.Event(), threading.Event(), []

    def own(loss, **more):
        began.set()
        assert goes_on.wait(30)
        seen.append((loss, more, threading.current_thread().name))

    def meanwhile(request):
        assert began.wait(30)
        assert not request.is_ready()
        assert not seen
        goes_on.set()

    backward_of(own, meanwhile)("loss", retain_graph=True)
    assert [one[:2] for one in seen] == [("loss", {"retain_graph": True})]
    assert seen[0][2] != threading.current_thread().name


def test_an_error_of_a_backward_is_the_runs():
    def own(_loss):
        raise ValueError("no gradient")

    with pytest.raises(ValueError, match="no gradient"):
        backward_of(own, lambda _request: None)("loss")


def test_a_run_that_ends_meanwhile_lets_its_backward_end_first():
    ended = threading.Event()

    def meanwhile(request):
        request.error = KeyboardInterrupt()
        threading.Timer(0.2, goes_on.set).start()

    goes_on = threading.Event()

    def own(_loss):
        goes_on.wait(30)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        backward_of(own, meanwhile)("loss")
    assert ended.is_set()


def test_a_backward_that_computes_forwards_again_is_queued_here():
    threads = []
    backward = backward_of(
        lambda _loss: threads.append(threading.current_thread()),
        lambda request: threads.append(request.is_ready()),
        computes_again=True,
    )
    backward("loss")
    assert threads == [threading.current_thread(), True]
