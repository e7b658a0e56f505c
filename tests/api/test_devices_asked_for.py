"""``run_fit(devices=...)``, as far as that needs no library."""

from __future__ import annotations

import pytest

from rf_notebook import ConfigError
from rf_notebook.automl import List
from rf_notebook.core.cluster import Cluster
from rf_notebook.core.fleet import DeviceFacts
from rf_notebook.core.objects import Objects
from rf_notebook.session.arguments import fit_arguments
from rf_notebook.session.preparing import prepare
from rf_notebook.testing.fake_backend import FakeBackend
from tests.api.world import fit, two


def test_devices_that_are_asked_for_while_it_trains_are_told_of(new, monkeypatch):
    experiment = fit(new(), two(num_train_epochs=30))
    monkeypatch.setattr(
        FakeBackend,
        "devices",
        lambda _self, wanted, stages, cluster: tuple(
            DeviceFacts(name=name, gpus=stages) for name in (wanted or ())
        ),
    )
    with pytest.warns(UserWarning, match="does so on the kernel. .* continues it on cpu, cpu"):
        fit(experiment, two(num_train_epochs=30), devices=["cpu", "cpu"])
    large = two(num_train_epochs=30, weight_decay=List([0.0, 0.1]))
    large.configs.num_gpus = 2
    with pytest.raises(
        ConfigError, match="has num_gpus=2, and the experiment trains on workers of 1"
    ):
        fit(experiment, large, extend=True, devices=[("cpu", "cpu")])
    experiment.cancel_current()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": 5}, r"cluster=5\): give the address of a running Ray cluster"),
        ({"cluster": "10.0.0.5"}, r"cluster='10\.0\.0\.5'\): give the address"),
        ({"cluster": "http://10.0.0.5:80"}, "give the address"),
        ({"cluster": "auto", "devices": ["cuda:0"]}, "the cluster chooses the GPUs; give their"),
        ({"allow_unauthenticated": True}, "is about a cluster; give cluster=, too"),
        ({"storage": "s3://bucket/x"}, "is about a cluster's checkpoints; give cluster=, too"),
        ({"cluster": "auto", "storage": "bucket/x"}, "give the address of a bucket"),
        ({"cluster": "auto", "storage": 3}, r"storage=3\): give the address of a bucket"),
        ({"cluster": "auto", "storage": "s3://me:pw@bucket/x"}, "leave keys and passwords out"),
        ({"cluster": "auto", "storage": "s3://b/x?secret_key=pw"}, "leave keys and passwords"),
    ],
)
def test_what_is_no_cluster_is_refused_before_anything_is_asked(new, monkeypatch, options, words):
    monkeypatch.setattr(FakeBackend, "devices", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(ConfigError, match=words):
        fit(new(), two(), **options)


def test_a_cluster_is_asked_once_and_never_for_a_replay(new, monkeypatch, backend):
    asked = []

    def devices(_self, wanted, stages, cluster):
        asked.append((wanted, stages, cluster))
        return ()

    monkeypatch.setattr(FakeBackend, "devices", devices)
    experiment = fit(new(), two(num_train_epochs=30), cluster="auto", allow_unauthenticated=True)
    cluster = Cluster(address="auto", allow_unauthenticated=True)
    assert asked == [("auto", 1, cluster)]
    fit(experiment, two(num_train_epochs=30), cluster="auto", allow_unauthenticated=True)
    assert len(asked) == 1, "its devices are in use; what it gave is known"
    given = fit_arguments(
        two(),
        None,
        [{"text": "a"}],
        None,
        num_chunks=4,
        num_shards=None,
        num_gpus=None,
        devices=None,
        cluster="ray://elsewhere:10001",
        storage=None,
        allow_unauthenticated=True,
        seed=1,
        data_seed=None,
        execution="exact",
        keep="best",
        fail_on_nan=False,
        sample_prompts=0,
        track=None,
        price_per_hour=None,
    )
    folder = experiment.folder
    prepare(folder, "it", given, known=Objects(), backend=backend, is_replay=True)
    assert asked[1:] == [("auto", 1, None)], "other people's cells join no cluster"
    experiment.cancel_current()
