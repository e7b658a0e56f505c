"""How does a run write whose tokens are joint?

transformers' ``generate`` prepares everything as for a run alone; what it does for each token, the
run does here, with its own processors, criteria and random stream. Where a generation is one that
joint steps do not know, transformers does it all, and the user is told why.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMode, MaxLengthCriteria

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: What ``generate`` hands to its decoding method that a joint step knows.
_KNOWN = ("attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep")
#: Arguments of ``generate`` that only transformers' own decoding takes.
_OF_OWN_DECODING = (
    *("custom_generate", "streamer", "tokenizer", "synced_gpus"),
    *("assistant_model", "assistant_tokenizer"),
)
_MODES = (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)


class Unusual(Exception):  # noqa: N818 - it tells, and nothing is wrong
    """A generation keeps transformers' own decoding; its text says why."""


class OwnTokens:
    """The tokens of a run that no joint step answers any more."""

    def __init__(self, forward: Callable[..., Any], given: Mapping[str, Any]) -> None:
        self._forward = forward
        self._mask: Tensor | None = given.get("attention_mask")
        self._cache = DynamicCache()

    def logits(self, tokens: Tensor) -> Tensor:
        """Of the next tokens, [b, vocabulary], from all that there are, [b, l]."""
        mask = self._mask
        mask = torch.ones_like(tokens) if mask is None else mask
        mask = nn.functional.pad(mask, (0, tokens.shape[1] - mask.shape[1]), value=1)
        new = tokens.shape[1] - self._cache.get_seq_length()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new:]
        outputs = self._forward(
            input_ids=tokens[:, -new:],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = outputs.logits[:, -1]
        return logits


def generating(
    own: Callable[..., Any],
    decode: Callable[..., Tensor],
    hindrance: Callable[[], str | None],
    tell: Callable[[str], None],
) -> Callable[..., Any]:
    """A model's ``generate`` whose tokens are joint where they can be.

    Args:
        own: The model's.
        decode: As transformers' ``custom_generate``; raises Unusual before anything is drawn.
        hindrance: Why nothing that is written now can be joint; None when it can.
        tell: Called with why a generation is not joint.
    """

    @functools.wraps(own)
    def generate(*args: Any, **kwargs: Any) -> Any:
        given = [name for name in _OF_OWN_DECODING if kwargs.get(name) is not None]
        why = f"it is given {' and '.join(given)}" if given else hindrance()
        if why is None:
            try:
                return own(*args, **kwargs, custom_generate=decode)
            except Unusual as unusual:
                why = str(unusual)
        tell(why)
        return own(*args, **kwargs)

    return generate


def check_usual(config: Any, given: Mapping[str, Any], cache: Any) -> None:
    """Raise Unusual for a generation that joint steps do not know.

    Args:
        config: The generation's.
        given: What ``generate`` hands to its decoding method.
        cache: The one of these that a joint step can fill; None when it cannot.
    """
    mode = config.get_generation_mode()
    unknown = [
        name
        for name, value in given.items()
        if name not in _KNOWN and value is not None and value is not False
    ]
    if mode not in _MODES:
        raise Unusual(f"it is {mode.value.replace('_', ' ')}, neither greedy nor sampling")
    if config.return_dict_in_generate:
        raise Unusual("return_dict_in_generate asks for more than tokens")
    if config.prefill_chunk_size is not None:
        raise Unusual("prefill_chunk_size reads prompts in pieces")
    if unknown:
        raise Unusual(f"the model is given {' and '.join(sorted(unknown))}")
    if not given.get("use_cache"):
        raise Unusual("use_cache=False computes every token again")
    if cache is None or cache.get_seq_length() != 0:
        raise Unusual("the model's cache of keys and values is of another kind, or is filled")


class RowsLeft:
    """Which rows of a run are left to write: a GPU tells when it has come that far."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.is_late = tells_late(device)
        self.known: npt.NDArray[np.bool_] | None = None
        """[b], as far as the host was told; those that ended stay so.

        None until then, and where tokens are drawn for all rows to the end.
        """
        on_gpu = device.type == "cuda"
        self._unfinished = torch.ones(rows, dtype=torch.long, pin_memory=on_gpu)
        self._told = torch.cuda.Event() if on_gpu else None

    def see(self, unfinished: Tensor) -> None:
        """Which rows are left, [b] of 1 and 0."""
        self._unfinished.copy_(unfinished, non_blocking=True)
        if self._told is not None:
            self._told.record()

    def is_none(self, *, has_end: bool) -> bool:
        """Of what was seen last.

        Args:
            has_end: Whether rows that ended are filled up with what is no token.
        """
        if self._told is not None:
            self._told.synchronize()
        left = self._unfinished.numpy() != 0
        self.known = left if has_end else None
        return not left.any()


def tells_late(device: torch.device) -> bool:
    """Whether the next step is to be launched before it is asked if any row is left.

    A GPU would stand still until the host knows.
    """
    return device.type == "cuda"


def most_tokens(criteria: Any) -> int:
    """Of a row, its prompt included; 0 where no criterion says it."""
    limits = [one.max_length for one in criteria if isinstance(one, MaxLengthCriteria)]
    return min(limits, default=0)


def decoded(
    input_ids: Tensor,
    logits_of: Callable[[Tensor], Tensor],
    processors: Any,
    criteria: Any,
    config: Any,
    left: RowsLeft,
) -> Tensor:
    """Prompt and answer, [b, l]: what transformers does from token to token.

    On a GPU one step more is computed than is needed where all rows ended before their limit;
    nothing is drawn for it.
    Source: transformers 5.17, ``GenerationMixin._sample``.

    Args:
        input_ids: The prompt, [b, p].
        logits_of: Of the next tokens, [b, vocabulary], from all that there are, [b, l].
        processors: Of logits.
        criteria: Of when to stop.
        config: The generation's.
        left: Is told which rows are left.
    """
    pads = config._pad_token_tensor  # noqa: SLF001 - where transformers prepares it
    has_end = any(hasattr(one, "eos_token_id") for one in criteria)
    most = most_tokens(criteria)
    unfinished = torch.ones(input_ids.shape[0], dtype=torch.long, device=input_ids.device)
    is_over = False
    while not is_over:
        logits = logits_of(input_ids)
        if left.is_late and left.is_none(has_end=has_end):
            break
        scores = processors(input_ids, logits.to(copy=True, dtype=torch.float32))
        if config.do_sample:
            chances = nn.functional.softmax(scores, dim=-1)
            tokens = torch.multinomial(chances, num_samples=1).squeeze(1)
        else:
            tokens = torch.argmax(scores, dim=-1)
        if has_end:
            tokens = tokens * unfinished + pads * (1 - unfinished)
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
        unfinished = unfinished & ~criteria(input_ids, None)
        left.see(unfinished)
        is_over = bool(most) and input_ids.shape[1] >= most
        is_over = is_over or (not left.is_late and left.is_none(has_end=has_end))
    return input_ids
