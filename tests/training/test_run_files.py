"""What a run's files hold."""

import torch
from safetensors.torch import load_file, save_file

from rf_notebook.training.run_files import _apart


def test_tied_weights_are_written_each(tmp_path):
    one = torch.arange(6.0).reshape(2, 3)
    apart = _apart({"a": one, "b": one, "c": one.t(), "d": torch.ones(2)})
    save_file(apart, tmp_path / "w.safetensors")
    read = load_file(tmp_path / "w.safetensors")
    assert torch.equal(read["a"], one)
    assert torch.equal(read["b"], one)
    assert torch.equal(read["c"], one.t())
