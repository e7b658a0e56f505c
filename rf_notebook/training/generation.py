"""What does a run's model write for the evaluation data, and how do metrics judge it?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from rf_notebook.core.run import GenerationSpeed
from rf_notebook.training.undisturbed import OwnStream

if TYPE_CHECKING:
    from rf_notebook.training.exchanges import Exchange

#: Keys of a generation_config that shape the prompts rather than the generation.
_PROMPT_KEYS = ("max_input_length", "add_generation_prompt", "truncation_side")
_DEFAULT_MAX_INPUT_LENGTH = 4096
#: Of an answer, where nothing else is said.
_NEW_TOKENS = 64
#: Of the answer by which a model's speed is measured.
_MEASURED_TOKENS = 32
#: Setting one of these means sampling.
_SAMPLING = ("temperature", "top_p", "top_k")


class _StopWhen(StoppingCriteria):
    """Ends a generation early when the process is about to end."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full(
            (input_ids.shape[0],), self._is_over(), dtype=torch.bool, device=input_ids.device
        )


class _Clock(StoppingCriteria):
    """Ends nothing; when each token came."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.times: list[float] = []
        """On the host; the first one waits for the device."""
        self.prompt_tokens = 0

    def synchronize(self) -> None:
        """Wait until the device has done what this thread asked of it."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if not self.times:
            self.synchronize()
            self.prompt_tokens = input_ids.shape[1] - 1
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def generated_metrics(
    model: Any,
    tokenizer: Any,
    exchanges: Sequence[Exchange],
    generation_config: Mapping[str, Any],
    compute_metrics: Callable[[tuple[list[str], list[str]]], Mapping[str, Any]],
    *,
    batch_size: int,
    seed: int,
    is_over: Callable[[], bool],
) -> dict[str, float]:
    """The user's metrics of generated texts.

    The process's random streams are the same before and after.

    Args:
        model: In evaluation mode while it generates, back in its mode after.
        tokenizer: The run's tokenizer; its padding side is the same after.
        exchanges: The evaluation data's exchanges.
        generation_config: Arguments of ``generate``, and ``max_input_length``,
            ``add_generation_prompt``, ``truncation_side`` for the prompts.
        compute_metrics: Called with (generated texts, reference texts).
        batch_size: Prompts at a time.
        seed: The sampling's seed, so that the same step gives the same texts.
        is_over: Asked at every token; generation ends when it says so.
    """
    config = dict(generation_config)
    shape = {key: config.pop(key) for key in _PROMPT_KEYS if key in config}
    if any(name in config for name in _SAMPLING):
        config.setdefault("do_sample", True)
    config.setdefault("pad_token_id", tokenizer.pad_token_id)
    room = _DEFAULT_MAX_INPUT_LENGTH
    if isinstance(tokenizer.model_max_length, int) and tokenizer.model_max_length < 10**9:
        room = max(64, tokenizer.model_max_length - int(config.get("max_new_tokens") or 0))
    max_input_length = shape.get("max_input_length") or room

    predictions = _generate(
        model,
        tokenizer,
        [
            one.prompt(tokenizer, add_generation_prompt=shape.get("add_generation_prompt", True))
            for one in exchanges
        ],
        config,
        batch_size=batch_size,
        max_input_length=max_input_length,
        truncation_side=shape.get("truncation_side", "left"),
        seed=seed,
        is_over=is_over,
        is_chat=bool(exchanges) and exchanges[0].is_chat,
    )
    made = compute_metrics((predictions, [one.expected.strip() for one in exchanges]))
    return {str(name): float(value) for name, value in made.items()}


def texts_of(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    settings: Mapping[str, Any],
    is_over: Callable[[], bool] = lambda: False,
    *,
    is_chat: bool,
) -> list[str]:
    """What a model writes to prompts, greedily unless told.

    The process's random streams are the same before and after.

    Args:
        model: See ``generated_metrics``.
        tokenizer: The run's tokenizer.
        prompts: Whole texts: see ``sample_texts``.
        settings: Arguments of ``generate``, 64 new tokens at most when omitted; ``seed`` of the
            sampling, 0 when omitted.
        is_over: See ``generated_metrics``.
        is_chat: Whether the texts are in a chat template, which has special tokens of its own.
    """
    config = {"max_new_tokens": _NEW_TOKENS, "pad_token_id": tokenizer.pad_token_id, **settings}
    seed = config.pop("seed", 0)
    config.setdefault("do_sample", any(name in config for name in _SAMPLING))
    return _generate(
        model,
        tokenizer,
        prompts,
        config,
        batch_size=len(prompts),
        max_input_length=_DEFAULT_MAX_INPUT_LENGTH,
        truncation_side="left",
        seed=seed,
        is_over=is_over,
        is_chat=is_chat,
    )


def generation_speed(
    model: Any, tokenizer: Any, prompt: str, is_over: Callable[[], bool], *, is_chat: bool
) -> GenerationSpeed:
    """How fast a model writes one answer of _MEASURED_TOKENS tokens, greedily, after a short try.

    Args:
        model: See ``generated_metrics``, like ``tokenizer`` and ``is_over``.
        tokenizer: The run's.
        prompt: A whole text: see ``sample_texts``.
        is_over: Asked at every token.
        is_chat: See ``texts_of``.
    """
    clock = _Clock(model.device)

    def write(count: int) -> None:
        clock.times.clear()
        config = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        _generate(
            model,
            tokenizer,
            [prompt],
            config | {"pad_token_id": tokenizer.pad_token_id},
            batch_size=1,
            max_input_length=_DEFAULT_MAX_INPUT_LENGTH,
            truncation_side="left",
            seed=0,
            is_over=is_over,
            is_chat=is_chat,
            watched=[clock],
        )

    write(2)
    clock.synchronize()
    started = time.perf_counter()
    write(_MEASURED_TOKENS)
    clock.synchronize()
    ended = time.perf_counter()
    first = clock.times[0]
    return GenerationSpeed(
        prompt_tokens=clock.prompt_tokens,
        new_tokens=len(clock.times),
        first_token_seconds=first - started,
        seconds=ended - first,
    )


def sample_texts(
    wanted: int | Sequence[str], exchanges: Iterable[Exchange], tokenizer: Any, *, is_chat: bool
) -> list[str]:
    """The sample prompts as whole texts.

    Args:
        wanted: Prompts as the user typed them, or how many of the data's rows give theirs.
        exchanges: Of the evaluation data (or, without one, of the training data).
        tokenizer: The run's tokenizer.
        is_chat: Whether the run trained on messages: then the tokenizer's chat template is applied
            to typed prompts.
    """
    if isinstance(wanted, int):
        return [one.prompt(tokenizer) for one in itertools.islice(exchanges, wanted)]
    if not is_chat or not getattr(tokenizer, "chat_template", None):
        return list(wanted)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in wanted
    ]


def _generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    config: Mapping[str, Any],
    *,
    batch_size: int,
    max_input_length: int,
    truncation_side: str,
    seed: int,
    is_over: Callable[[], bool],
    is_chat: bool,
    watched: Sequence[StoppingCriteria] = (),
) -> list[str]:
    was_training = model.training
    sides = tokenizer.padding_side, tokenizer.truncation_side
    texts: list[str] = []
    stream = OwnStream(seed)
    try:
        model.eval()
        tokenizer.padding_side, tokenizer.truncation_side = "left", truncation_side
        for start in range(0, len(prompts), batch_size):
            inputs = tokenizer(
                list(prompts[start : start + batch_size]),
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=max_input_length,
                add_special_tokens=not is_chat,
                return_token_type_ids=False,
            ).to(model.device)
            with torch.no_grad(), stream:
                criteria = StoppingCriteriaList([_StopWhen(is_over), *watched])
                output = model.generate(**inputs, **config, stopping_criteria=criteria)
            fresh = output[:, inputs["input_ids"].shape[1] :]
            texts.extend(
                text.strip() for text in tokenizer.batch_decode(fresh, skip_special_tokens=True)
            )
    finally:
        tokenizer.padding_side, tokenizer.truncation_side = sides
        model.train(was_training)
    return texts
