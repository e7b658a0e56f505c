"""How do the tokens of a packed batch attend to those of their own sequence alone?

All sequences lie end to end in one row. A GPU's variable-length kernel takes them as they lie;
everywhere else they are put into rows for the one product that needs rows.
"""

from __future__ import annotations

import inspect
from enum import StrEnum
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

#: Under which transformers knows the attention below.
PACKED = "rf_packed"
#: Of a config's ``layer_types``: what a layer may be. Others keep a state from token to token.
_LAYER_TYPES = ("full_attention", "sliding_attention")
#: What attention functions are given that changes what they compute, and the value that does not.
_CHANGES = {"softcap": None, "s_aux": None, "dropout": 0.0}
#: FlashAttention's, which the kernel below is: heads of more elements are refused, and those of no
#: multiple of this many.
_WIDEST_HEAD, _HEAD_ALIGNMENT = 256, 8
#: How many times as far as by rounding packed rows may be from padded ones, and how far at most;
#: rows that have nothing to do with each other are 1.4 apart.
_NOISES, _MOST_APART = 4.0, 0.3
_KNOWN = inspect.signature(varlen_attn).parameters
_KNOWS_GROUPS = "enable_gqa" in _KNOWN


class AttentionWay(StrEnum):
    """How packed attention is computed."""

    VARLEN = "varlen_attn"
    """FlashAttention over the sequences as they lie: 16 bits on a GPU from compute capability 8."""
    ROWS = "scaled_dot_product_attention"
    """The sequences are put into rows, each padded to the longest, and taken out again."""


#: For tests and benchmarks: the way that is taken whatever the device can do.
forced_way: AttentionWay | None = None


def attention_way(device: torch.device, dtype: torch.dtype, head_width: int) -> AttentionWay:
    """The faster one that works.

    Args:
        device: Where the model is.
        dtype: Of queries, keys and values.
        head_width: Elements of a head.
    """
    if forced_way is not None:
        return forced_way
    is_known = {"scale", "window_size"} <= _KNOWN.keys() and head_width <= _WIDEST_HEAD
    is_known = is_known and head_width % _HEAD_ALIGNMENT == 0
    is_known = is_known and dtype in (torch.float16, torch.bfloat16)
    if device.type == "cuda" and is_known and _has_flash(device.index or 0):
        return AttentionWay.VARLEN
    return AttentionWay.ROWS


@cache
def _has_flash(device: int) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def attend(
    module: nn.Module,  # noqa: ARG001 - transformers hands it on
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - sequences need none
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    to_rows: Tensor | None,
    from_rows: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' models ask for it, over sequences that lie end to end.

    ``T`` tokens, ``s`` sequences, ``h`` heads of ``d`` elements.

    Args:
        module: The attention layer.
        query: [1, h, T, d].
        key: [1, h', T, d], h' dividing h.
        value: [1, h', T, d].
        attention_mask: None.
        cu_seq_lens_q: [s + 1]: where sequences begin and end.
        max_length_q: Tokens of the longest sequence, or a few more.
        to_rows: [s * longest]: the token at each place of the rows; None takes the kernel.
        from_rows: [T]: the place of each token in the rows; None takes the kernel.
        scaling: What products are multiplied by.
        sliding_window: How many tokens each token sees, itself included; None for all before it.
        given: What else the layer says.

    Returns:
        [1, T, h, d], and no weights.

    Raises:
        NotImplementedError: for what only a model's own attention computes.
    """
    for name, neutral in _CHANGES.items():
        if given.get(name, neutral) not in (None, neutral):
            raise NotImplementedError(f"attention with {name}")
    if to_rows is None or from_rows is None:
        # Unlike scaled_dot_product_attention the kernel is not cast by autocast.
        kind = query.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
        q, k, v = (one[0].transpose(0, 1).to(dtype) for one in (query, key, value))
        groups = q.shape[1] // k.shape[1]
        options: dict[str, Any] = {"scale": scaling}
        if groups > 1 and _KNOWS_GROUPS:
            options["enable_gqa"] = True
        elif groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        left = -1 if sliding_window is None else sliding_window - 1
        lengths = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        found: Any = varlen_attn(q, k, v, *lengths, window_size=(left, 0), **options)
        return found.unsqueeze(0), None
    sequences = cu_seq_lens_q.shape[0] - 1
    q, k, v = (_in_rows(one, to_rows, sequences) for one in (query, key, value))
    longest = q.shape[2]
    mask = None
    if sliding_window is not None and sliding_window < longest:
        at = torch.arange(longest, device=query.device)
        apart = at[:, None] - at[None]
        mask = (apart >= 0) & (apart < sliding_window)
    rows = nn.functional.scaled_dot_product_attention(
        q, k, v, mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    flat = rows.transpose(1, 2).reshape(-1, *rows.shape[1::2])
    return flat.index_select(0, from_rows).unsqueeze(0), None


def _in_rows(one: Tensor, to_rows: Tensor, sequences: int) -> Tensor:
    """[1, h, T, d] as [s, h, longest, d].

    What pads the rows comes after all tokens, so none of them sees it.
    """
    tokens = one[0].transpose(0, 1)
    rows = tokens.index_select(0, to_rows)
    return rows.view(sequences, -1, *rows.shape[1:]).transpose(1, 2)


AttentionInterface.register(PACKED, attend)


def why_not_packed(tree: Any, backbone: nn.Module) -> str:
    """Why a model's rows cannot be packed; empty when they can.

    What the model says of itself, then a try: two sequences of a few tokens, packed, have to give
    what each gives alone, and nothing of one may depend on the other.

    Args:
        tree: The language model.
        backbone: Below its head.
    """
    config = tree.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - set(_LAYER_TYPES)
    if others:
        return f"it has layers of the type {sorted(others)[0]}"
    if "position_ids" not in inspect.signature(backbone.forward).parameters:
        return "its forward takes no position_ids"
    own = config._attn_implementation  # noqa: SLF001 - where transformers keeps it
    # Nothing is to be drawn. Evaluation mode would let bitsandbytes lay its weights out anew.
    dropouts = [m for m in backbone.modules() if isinstance(m, nn.Dropout) and m.training]
    for module in dropouts:
        module.training = False
    try:
        return _tried(config, backbone)
    except Exception as error:  # noqa: BLE001 - whatever a model raises, it keeps its own way
        return f"it raised {type(error).__name__}: {error}"[:200]
    finally:
        for module in dropouts:
            module.training = True
        config._attn_implementation = own  # noqa: SLF001 - where transformers keeps it


def _tried(config: Any, backbone: nn.Module) -> str:
    device = next(backbone.parameters()).device
    own, lengths, words = config._attn_implementation, (5, 3), config.vocab_size  # noqa: SLF001

    def ids(*numbers: int) -> Tensor:
        return torch.tensor([[one % words for one in numbers]], device=device)

    def packed(first: tuple[int, ...], second: tuple[int, ...]) -> Tensor:
        config._attn_implementation = PACKED  # noqa: SLF001 - where transformers keeps it
        rows = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 0], device=device)
        places = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7], device=device)
        at = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]], device=device)
        ends = torch.tensor([0, 5, 8], device=device, dtype=torch.int32)
        found: Tensor = backbone(
            input_ids=ids(*first, *second),
            attention_mask=None,
            position_ids=at,
            use_cache=False,
            **attention_arguments(ends, 5, rows, places),
        ).last_hidden_state[0]
        return found

    def alone(tokens: tuple[int, ...]) -> Tensor:
        config._attn_implementation = own  # noqa: SLF001 - where transformers keeps it
        found: Tensor = backbone(input_ids=ids(*tokens), use_cache=False).last_hidden_state[0]
        return found

    first, other, second = (5, 6, 7, 8, 9), (15, 12, 11, 16, 10), (7, 9, 6)
    with torch.no_grad():
        found, again, beside = packed(first, second), packed(first, second), packed(other, second)
        expected = torch.cat([alone(first), alone(second)])
        longer = alone((*first, *second))
    # Some kernels add in another order each time, and 4-bit ones in another for each number of rows.
    noise, rounding = _apart(again, found), _apart(longer[: lengths[0]], expected[: lengths[0]])
    seen, apart = _apart(beside[lengths[0] :], found[lengths[0] :]), _apart(found, expected)
    if seen > _NOISES * noise:
        return f"its tokens see those of other rows ({seen:.2g} apart)"
    exact = found.dtype in (torch.float32, torch.float64)
    allowed = min(max(1e-4 if exact else 5e-2, _NOISES * rounding), _MOST_APART)
    return "" if apart <= allowed else f"packed rows give it something else ({apart:.2g} apart)"


def _apart(one: Tensor, other: Tensor) -> float:
    """The distance of two tensors, relative to the second."""
    return float((one - other).float().norm() / other.float().norm())


def attention_arguments(
    ends: Tensor, longest: int, to_rows: Tensor | None, from_rows: Tensor | None
) -> dict[str, Any]:
    """What a backbone's forward hands on to ``attend``, under transformers' names where it has them."""
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
        "to_rows": to_rows,
        "from_rows": from_rows,
    }
