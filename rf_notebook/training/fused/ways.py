"""What do joint steps compute with on this machine?"""

from __future__ import annotations

import torch

from rf_notebook.training.device import run_device
from rf_notebook.training.fused.attention import attention_way
from rf_notebook.training.fused.linear import way_of
from rf_notebook.training.fused.recorded import RecordedPasses

#: Of usual models: elements of a head, and the widths of a layer with an adapter.
_HEAD_WIDTH, _WIDTHS = 128, (2048, 16, 2048)


def ways_here() -> str:
    """For 16-bit models of usual shapes and runs with different numbers of tokens, in words."""
    device = run_device()
    has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if has_bfloat16 else torch.float16
    attention = attention_way(device, dtype, head_width=_HEAD_WIDTH)
    products = way_of((8, 16), dtype, _WIDTHS, device)
    name = str(dtype).removeprefix("torch.")
    graphs = "; small passes replay CUDA graphs" if RecordedPasses.is_possible else ""
    return f"in {name}: attention by {attention}, adapters by {products}{graphs}"
