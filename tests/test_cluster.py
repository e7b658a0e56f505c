"""``run_fit(cluster=...)``: on a Ray head of this machine, with two workers on the CPU."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import psutil
import pytest

from rf_notebook import ConfigError, Experiment
from rf_notebook.core.cluster import Cluster
from rf_notebook.magic.doctor import Health, diagnose
from rf_notebook.runners.cluster.placing import stay_in
from rf_notebook.runners.cluster.probe import devices_of, probed
from rf_notebook.store.storage_place import stand_ins
from rf_notebook.testing.tiny import create_tiny
from tests.head import Head
from tests.test_devices import ROWS, _one_thread, search, trained  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TWO = ["cpu", "cpu"]


@pytest.fixture(scope="module")
def _head(tmp_path_factory):
    head = Head(tmp_path_factory.mktemp("head"))
    yield head
    head.kill()
    shutil.rmtree(head.sessions, ignore_errors=True)


@pytest.fixture
def head(_head, monkeypatch):
    """As a user's environment is who may join it."""
    if not _head.is_up and (problem := _head.start()):
        pytest.skip(problem)
    for name, value in _head.environment.items():
        monkeypatch.setenv(name, value)
    return _head


def on_a_head(test):
    """A test that says nothing when Ray's own processes gave up under it."""

    @functools.wraps(test)
    def run(*, head, **fixtures):
        try:
            test(head=head, **fixtures)
        except Exception:
            until = time.monotonic() + 5  # it looks after its parts once a second
            while not head.has_died and time.monotonic() < until:
                time.sleep(0.2)
            if head.has_died:
                pytest.skip(f"the Ray head died by itself: {head.log.read_text()[-300:]!r}")
            raise

    return run


_found = []


@pytest.fixture
def expected(new):
    """Results, weights and texts as the kernel trains and writes them."""
    if not _found:
        _found.append(trained(new("kernel")))
    return _found[0]


def processes(*words):
    """Those whose command line has all of these words."""
    found = []
    for one in psutil.process_iter():
        try:
            line = " ".join(one.cmdline())
        except psutil.Error:
            continue
        if all(word in line for word in words):
            found.append(one)
    return found


def left_after(seconds):
    """What is still there of bridges, actors and workers once they have had time to end."""
    until = time.monotonic() + seconds
    while left := processes(*WORKER) + processes(*ACTOR) + processes(*BRIDGE):
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return left


SCRATCH = Path(gettempdir()) / f"rf-notebook-{os.getuid()}"
WORKER, ACTOR, BRIDGE = ("rf_notebook.runners.worker",), ("ray::Carrier",), ("cluster.bridge",)


@on_a_head
def test_workers_of_a_cluster_train_what_the_kernel_trains_and_leave_nothing(
    new, tmp_path, head, expected
):
    results, weights, texts = expected
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    before = dict(os.environ), handlers, sys.excepthook, "ray" in sys.modules
    there = new("cluster")
    found, found_weights, found_texts = trained(there, devices=TWO, cluster=head.address)
    assert found.equals(results)
    assert found_weights == weights
    assert found_texts.equals(texts)
    assert list(there.get_devices().host) == [socket.gethostname()] * 2
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert (dict(os.environ), handlers, sys.excepthook, "ray" in sys.modules) == before
    assert not [one for one in psutil.Process().net_connections() if one.status == "LISTEN"]
    child = there.clone(1, {"learning_rate": 2e-3}, warm_start=True).result()
    assert there.wait(timeout=240)
    assert there.run(child.id).state == "completed"
    assert (there.export(2, tmp_path / "out") / "adapter_model.safetensors").exists()
    with pytest.raises(ConfigError, match="is not empty; export to a new folder"):
        there.export(2, tmp_path / "out")
    assert there.load(1).training is False
    there.end()
    assert not left_after(60)
    assert not (head.folder / ".ray").exists()
    assert not list(SCRATCH.iterdir()), "nothing is left on the node"


@on_a_head
def test_a_killed_bridge_and_a_killed_actor_cost_a_chunk_and_checkpoints_are_in_a_bucket(
    new, tmp_path, head, expected, bucket
):
    """Which is slow, and refuses one request in twenty."""
    draw = random.Random(1)
    bucket.seconds, bucket.refuses = 0.02, lambda *_: draw.random() < 0.05
    killed = new("killed")
    killed.run_fit(
        search(),
        create_tiny,
        *ROWS,
        num_chunks=4,
        display=False,
        sample_prompts=1,
        devices=TWO,
        cluster=head.address,
        storage=bucket.address,
    )
    for victim, steps in ((BRIDGE, 1), (ACTOR, 4)):  # of 16 in all
        before = len(killed.messages)
        while sum(run.steps for run in killed.runs) < steps:
            time.sleep(0.01)
        processes(*victim)[-1].kill()
        until = time.monotonic() + 120
        while len(killed.messages) == before and time.monotonic() < until:
            time.sleep(0.05)
        assert len(killed.messages) > before, f"{victim} was not missed"
    assert killed.wait(timeout=240)
    assert killed.get_results().equals(expected[0])
    assert bucket.refused > 0
    bucket.seconds, bucket.refuses = 0.0, lambda *_: False
    killed.end()
    runs = killed.session.state.runs.values()
    kept = {saved.folder.path for one in runs for saved in one.checkpoints}
    there = set(stand_ins(killed.folder))
    in_bucket = {"/".join(name.split("/")[3:6]) for name in bucket.names() if "/runs/" in name}
    # None passed through here; what a kill left uncommitted goes when the experiment continues.
    assert kept <= there <= in_bucket
    # Two kills, and two workers that may have been about to commit at each.
    assert len(in_bucket) <= len(kept) + 4, "what is superseded is deleted: of 16 in all"
    again = Experiment("killed", experiment_path=killed.folder.parent)
    with pytest.raises(ConfigError, match="checkpoints of this experiment lie in 's3://bucket/exp"):
        again.load(1, create_tiny)
    again = Experiment("killed", experiment_path=killed.folder.parent, storage=bucket.address)
    assert again.load(1, create_tiny).training is False
    assert len(stand_ins(killed.folder)) == len(there) - 1, "what was needed is here"


KERNEL = """
import sys, time
import torch
from rf_notebook import Experiment
from tests.test_devices import ROWS, create_tiny, search

torch.set_num_threads(1)
folder, address = sys.argv[1:]
experiment = Experiment("kernel-killed", experiment_path=folder)
experiment.run_fit(
    search(), create_tiny, *ROWS, num_chunks=4, display=False, sample_prompts=1,
    devices=["cpu", "cpu"], cluster=address,
)
while min(run.steps for run in experiment.runs) < 3:
    time.sleep(0.01)
print("trained", flush=True)
time.sleep(600)
"""


@on_a_head
def test_a_killed_kernel_leaves_nothing_on_the_cluster_and_is_continued(
    new, tmp_path, head, expected
):
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(tmp_path), head.address],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with kernel:
        assert kernel.stdout.readline() == "trained\n"
        kernel.kill()
    assert not left_after(60)
    again = new("kernel-killed")
    options = {"num_chunks": 4, "display": False, "sample_prompts": 1, "devices": TWO}
    again.run_fit(search(), create_tiny, *ROWS, cluster=head.address, **options)
    assert again.wait(timeout=240)
    assert again.get_results().equals(expected[0])
    again.end()
    assert not left_after(60)
    assert not list(SCRATCH.iterdir()), "what the killed one left is removed by the next one"


@on_a_head
def test_a_node_that_is_drained_is_told_of_and_a_cluster_that_goes_away_is_waited_for(
    new, head, expected
):
    left, drainer = new("left"), head.drainer()
    options = {"num_chunks": 4, "display": False, "sample_prompts": 1, "devices": TWO}
    left.run_fit(search(), create_tiny, *ROWS, cluster=head.address, **options)
    while sum(run.steps for run in left.runs) < 2:
        time.sleep(0.01)
    assert drainer.communicate("now\n")[0] == "(True, '')\n"
    until = time.monotonic() + 60
    while not (told := [one for one in left.messages if "its node is drained" in one]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert told[0].endswith("Its runs are saved.")
    head.kill()
    if problem := head.start():
        pytest.skip(problem)
    assert left.wait(timeout=200), left.messages
    assert left.get_results().equals(expected[0])
    assert any("Its runs continue from their checkpoints" in told for told in left.messages)


@on_a_head
def test_the_client_of_ray_joins_as_well(new, head, expected):
    address = f"ray://127.0.0.1:{head.client_port}"
    assert trained(new("client"), devices=["cpu"], cluster=address)[0].equals(expected[0])


@on_a_head
def test_the_doctor_says_how_a_cluster_is(head, tmp_path):
    def parts(address):
        found = diagnose(tmp_path, Cluster(address=address)).findings
        return {one.part.split()[0]: one for one in found[len(diagnose(tmp_path).findings) :]}

    told = parts(head.address)
    assert "nodes: 1, GPUs free: 0 of 0" in told["cluster"].words
    assert (told["node"].health, told["node"].words) == (
        Health.GOOD,
        "0 GPUs, the versions of this kernel",
    )
    assert "a process that joins opens 127.0.0.1:" in told["listeners"].words
    assert "not encrypted" in told["traffic"].words
    assert "listeners" not in parts(f"ray://127.0.0.1:{head.client_port}")
    (nobody,) = parts("127.0.0.1:9").values()
    assert nobody.health is Health.BAD


@on_a_head
def test_what_is_not_there_is_one_sentence(head, monkeypatch):
    cluster = Cluster(address=head.address)
    with pytest.raises(ConfigError, match="has 0 GPUs, and 3 are asked for"):
        devices_of(cluster, 3, 1)
    stay = stay_in(cluster, ["cpu"])
    other = replace(stay, versions={**stay.versions, "trl": "0.1"})
    with pytest.raises(ConfigError, match=r"has trl [\d.]+ instead of 0\.1; runs would not"):
        probed(other, fills=False)
    nobody = Cluster(address="127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9' does not answer: .*refused"):
        devices_of(nobody, ("cpu",), 1)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    with pytest.raises(ConfigError, match="no token for Ray, and whoever reaches a cluster"):
        devices_of(cluster, ("cpu",), 1)
