"""A run that waits for others inside torch's contexts leaves them outside, and finds them again."""

from __future__ import annotations

import pytest
import torch

from rf_notebook.training.process_state import function_modes, outside_torch_contexts
from rf_notebook.training.undisturbed import OwnStream


def seen() -> dict[str, object]:
    drawn, made = torch.rand(()).item(), torch.ones(2, 2, requires_grad=True)
    product = made @ made
    return {
        "draws": drawn,
        "grad": product.requires_grad,
        "inference": product.is_inference(),
        "autocast": product.dtype,
        "device": torch.empty(1).device.type,
    }


@pytest.mark.parametrize("is_inference", [False, True])
def test_nothing_of_them_is_there_while_it_waits(is_inference: bool) -> None:
    own = OwnStream(5)
    torch.manual_seed(1)
    elsewhere = seen()
    torch.manual_seed(1)
    modes = function_modes()
    off = torch.inference_mode() if is_inference else torch.no_grad()
    with off, torch.autocast("cpu", dtype=torch.bfloat16), own, torch.device("meta"):
        before = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), function_modes()
        with outside_torch_contexts(modes):
            assert seen() == elsewhere
        after = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), function_modes()
        assert after == before == (is_inference, False, modes + 2)
        assert torch.empty(1).device.type == "meta"
        assert torch.is_autocast_enabled("cpu")
    assert function_modes() == modes
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
