"""What a run's files hold."""

from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

from rf_notebook.training.building import newest_of
from rf_notebook.training.run_files import _apart, _on_host


def test_tied_weights_are_written_each(tmp_path):
    one = torch.arange(6.0).reshape(2, 3)
    apart = _apart({"a": one, "b": one, "c": one.t(), "d": torch.ones(2)})
    save_file(apart, tmp_path / "w.safetensors")
    read = load_file(tmp_path / "w.safetensors")
    assert torch.equal(read["a"], one)
    assert torch.equal(read["b"], one)
    assert torch.equal(read["c"], one.t())


def test_copies_on_the_host_are_whole_and_the_runs_own_change_nothing_in_them(tmp_path):
    flat = torch.arange(10.0)
    a, b = flat[:6].view(2, 3), flat[6:].view(4)
    part, turned = torch.arange(8.0)[2:5], torch.arange(6.0).view(2, 3).t()
    state = {"state": {0: {"a": a, "b": b}, 1: [part, turned]}, "groups": [{"lr": 0.1}]}
    copied = _on_host(state)
    for tensor in (flat, part, turned):
        tensor.add_(1.0)
    assert torch.equal(copied["state"][0]["a"], torch.arange(6.0).view(2, 3))
    assert torch.equal(copied["state"][0]["b"], torch.arange(6.0, 10.0))
    assert torch.equal(copied["state"][1][0], torch.arange(2.0, 5.0))
    assert torch.equal(copied["state"][1][1], torch.arange(6.0).view(2, 3).t())
    assert copied["groups"] == [{"lr": 0.1}]


def test_what_fills_one_storage_is_copied_at_once_and_saved_once(tmp_path):
    flat = torch.arange(1000.0)
    parts = dict(enumerate(flat.split(10)))
    copied = _on_host(parts)
    assert len({one.untyped_storage().data_ptr() for one in copied.values()}) == 1
    torch.save(copied, tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size < 30_000
    read = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(torch.equal(read[key], part) for key, part in parts.items())
    named = {str(key): part for key, part in copied.items()}
    save_file(named, tmp_path / "w.safetensors")
    assert all(torch.equal(load_file(tmp_path / "w.safetensors")[key], named[key]) for key in named)


def test_a_slice_of_a_large_tensor_is_copied_alone():
    whole = torch.zeros(1_000_000)
    (copied,) = _on_host([whole[:3]])
    assert copied.untyped_storage().nbytes() == 12


def test_a_run_continues_from_what_was_written_unless_it_fell_back_behind_it():
    def request(at, committed):
        stored = None if committed is None else SimpleNamespace(steps=committed)
        return SimpleNamespace(progress=SimpleNamespace(steps=at), continue_from=stored)

    written = SimpleNamespace(steps=20)
    assert newest_of(request(20, 10), written) is written
    assert newest_of(request(20, None), written) is written
    assert newest_of(request(10, 10), written).steps == 10  # 20 was damaged
    assert newest_of(request(0, None), written) is None
    again = request(20, 20)
    assert newest_of(again, written) is again.continue_from
    assert newest_of(again, None) is again.continue_from
