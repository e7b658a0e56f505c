"""Runs that write together write what each writes alone, and draw what each draws alone."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from greenlet import getcurrent, greenlet
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache

from rf_notebook.training.fused import writing
from rf_notebook.training.fused.decoder import JointDecoder
from rf_notebook.training.fused.request import NextTokens
from rf_notebook.training.fused.table import columns_for
from rf_notebook.training.fused.writing import RowsLeft, decoded, most_tokens
from tests.thorough import few

VOCABULARY, END, PAD = 60, 1, 0


@pytest.fixture(autouse=True)
def _few_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rf_notebook.training.fused.table._COLUMNS", 32)  # so that they run out


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        pad_token_id=PAD,
        eos_token_id=END,
    )
    made = LlamaForCausalLM(config).eval()
    for parameter in made.parameters():  # answers that differ
        torch.nn.init.normal_(parameter, std=0.25)
    return made


@dataclass
class Prompt:
    """As much of a Forward as a decoder looks at."""

    input_ids: Tensor
    attention_mask: Tensor | None
    position_ids: Tensor
    cache: Any
    result: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.input_ids.shape[0]

    @property
    def length(self) -> int:
        return self.input_ids.shape[1]


class Run:
    """One that writes, in a greenlet, with a random stream of its own."""

    def __init__(self, model: Any, rng: random.Random, starts_at: int) -> None:
        self.starts_at = starts_at
        rows, length = rng.randint(1, 4), rng.randint(1, 9)
        self.ids = torch.tensor(
            [[rng.randint(3, VOCABULARY - 1) for _ in range(length)] for _ in range(rows)]
        )
        self.mask = torch.ones_like(self.ids)
        for row in range(rows):
            padding = rng.randint(0, length - 1)
            self.ids[row, :padding], self.mask[row, :padding] = PAD, 0
        if rng.random() < 0.5:  # several answers to each prompt
            again = [rng.randrange(rows) for _ in range(rng.randint(2, 6))]
            self.ids, self.mask = self.ids[again], self.mask[again]
        self.settings: dict[str, Any] = {"max_new_tokens": rng.choice([3, 12, 30, 80])}
        if rng.random() < 0.7:
            self.settings |= {"do_sample": True, "temperature": rng.choice([0.7, 1.0, 1.4])}
            self.settings |= rng.choice([{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}])
        if rng.random() < 0.4:
            self.settings["repetition_penalty"] = 1.3
        if rng.random() < 0.4:
            self.settings["eos_token_id"] = [END, *rng.sample(range(3, VOCABULARY), 5)]
        torch.manual_seed(rng.randint(0, 99))
        self.stream = self.first = torch.get_rng_state()
        self.model, self.answer, self.request = model, None, None
        self.greenlet = greenlet(self._write)

    def alone(self) -> tuple[Tensor, Tensor]:
        """What it writes by itself, and where its stream ends."""
        torch.set_rng_state(self.first)
        written = self.model.generate(input_ids=self.ids, attention_mask=self.mask, **self.settings)
        return written, torch.get_rng_state()

    def go_on(self) -> None:
        torch.set_rng_state(self.stream)
        self.greenlet.parent = getcurrent()
        self.greenlet.switch()
        self.stream = torch.get_rng_state()

    def _write(self) -> None:
        self.answer = self.model.generate(
            input_ids=self.ids,
            attention_mask=self.mask,
            custom_generate=self._decode,
            **self.settings,
        )
        self.request = None

    def _decode(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **given: Any,
    ) -> Tensor:
        prompt: Any = Prompt(
            input_ids, given["attention_mask"], given["position_ids"], DynamicCache()
        )
        left = RowsLeft(len(input_ids), input_ids.device)
        asked = NextTokens(self, prompt, input_ids, most_tokens(stopping_criteria), left)

        def logits_of(tokens: Tensor) -> Tensor:
            asked.tokens = tokens[:, -1:]
            self.request = asked
            self.greenlet.parent.switch()
            assert asked.hidden is not None
            logits: Tensor = model.lm_head(asked.hidden)[:, -1]
            return logits

        return decoded(
            input_ids, logits_of, logits_processor, stopping_criteria, generation_config, left
        )


def recorded(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """As a GPU records it: the operations alone, on the tensors that there were."""
    again: Callable[[], Tensor] = make_fx(step)()
    return again


def decoder_of(
    model: Any,
    sizes: list[int],
    rows: list[int],
    record: Callable[[Any], Any] = lambda _step: None,
    free_bytes: Callable[[], float] = lambda: math.inf,
) -> JointDecoder:
    def prefill(prompts: Any, _stacked: Any) -> None:
        for prompt in prompts:
            mask = prompt.attention_mask
            rows = torch.cat([prompt.input_ids, *([] if mask is None else [mask])], 1)
            assert len(rows.unique(dim=0)) == len(rows), "each prompt once"
            prompt.result = dict(
                model.model(
                    input_ids=prompt.input_ids,
                    attention_mask=prompt.attention_mask,
                    position_ids=prompt.position_ids,
                    past_key_values=prompt.cache,
                    use_cache=True,
                )
            )

    def step(prompts: Any, _stacked: Any, given: dict[str, Any]) -> Tensor:
        sizes.append(len(prompts))
        rows.append(len(given["input_ids"]))
        assert sum(prompt.rows for prompt in prompts) == rows[-1]
        hidden: Tensor = model.model(**given).last_hidden_state
        return hidden

    return JointDecoder(prefill, step, record, free_bytes, 1.0, logging.getLogger("rf_notebook"))


def write(runs: list[Run], decoder: JointDecoder, rng: random.Random) -> list[list[int]]:
    """Let all write to the end; returns at each tick which of those that asked had to wait."""
    order, waiting = list(runs), list[Run]()
    waited, tick = list[list[int]](), 0
    while any(run.answer is None for run in runs):
        begun = [run for run in runs if run.starts_at <= tick and run.answer is None]
        for run in begun:
            if run not in waiting:
                run.go_on()
        asked = [run.request for run in begun if run.request is not None]
        if rng.random() < 0.1:
            rng.shuffle(order)  # adapters lie in another order from now on
        asked.sort(key=lambda request: order.index(request.member))
        waiting = []
        if asked:
            answered, _ = decoder.answer(asked, SimpleNamespace(blocks=[]))  # type: ignore[arg-type]
            waiting = [one.member for one in asked if one not in answered]
        waited.append([runs.index(run) for run in waiting])
        tick += 1
    return waited


@torch.no_grad()
@pytest.mark.parametrize("seed", few(4, range(10)))
@pytest.mark.parametrize(
    ("is_recorded", "is_late"),
    [(False, False), (True, False), (True, True)],
    ids=["computed", "recorded", "told late"],
)
def test_every_token_and_every_stream_is_that_of_the_run_alone(
    model: Any, monkeypatch: pytest.MonkeyPatch, seed: int, is_recorded: bool, is_late: bool
) -> None:
    monkeypatch.setattr(writing, "tells_late", lambda _device: is_late)
    rng = random.Random(seed)
    starts = [0, 0, *rng.choices([0, 2, 15], k=rng.randint(0, 4))]
    runs = [Run(model, rng, start) for start in starts]
    expected = [run.alone() for run in runs]
    sizes: list[int] = []
    rows: list[int] = []
    replays: list[int] = []

    def record(step: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        if not is_recorded:
            return None
        again = recorded(step)
        return lambda: (replays.append(1), again())[1]

    write(runs, decoder_of(model, sizes, rows, record), rng)
    for run, (written, stream) in zip(runs, expected, strict=True):
        assert run.answer is not None
        assert torch.equal(run.answer, written)
        assert torch.equal(run.stream, stream)
    assert max(sizes) > 1, "they shared steps"
    assert bool(replays) is is_recorded


@torch.no_grad()
@pytest.mark.parametrize("is_late", [False, True])
def test_rows_that_ended_take_no_part_in_further_steps(
    model: Any, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    monkeypatch.setattr(writing, "tells_late", lambda _device: is_late)
    rng = random.Random(1)
    runs = [Run(model, rng, 0) for _ in range(3)]
    for run in runs:
        run.settings = {"max_new_tokens": 60, "do_sample": True}
        run.settings["eos_token_id"] = [END, *range(3, 8)]
    expected = [run.alone() for run in runs]
    sizes: list[int] = []
    rows: list[int] = []
    write(runs, decoder_of(model, sizes, rows), rng)
    all_rows = sum(len(run.ids) for run in runs)
    assert rows[0] == all_rows
    assert any(
        few <= all_rows / 2 for few, runs_in in zip(rows, sizes, strict=True) if runs_in == 3
    )
    for run, (written, stream) in zip(runs, expected, strict=True):
        assert torch.equal(run.answer, written)
        assert torch.equal(run.stream, stream)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
def test_runs_for_which_there_is_no_room_write_after_others(model: Any, seed: int) -> None:
    rng = random.Random(seed)
    runs = [Run(model, rng, 0) for _ in range(4)]
    for run in runs:
        run.settings["max_new_tokens"] = 12
    expected = [run.alone() for run in runs]
    rows: list[int] = []
    most = max(len(run.ids) for run in runs) + 1
    whole, taken = most * columns_for(30) / 0.75, list[float]()

    def free_bytes() -> float:
        table = decoder._table  # noqa: SLF001 - what it has taken of the device's memory
        taken.append(0.0 if table is None else table.rows * table.seen.shape[1] * 1.0)
        return whole - taken[-1]

    decoder = decoder_of(model, [], rows, free_bytes=free_bytes)
    waited = write(runs, decoder, rng)
    assert any(waited)
    assert 0 < max(taken) <= whole
    assert max(rows) * columns_for(0) <= whole
    for run, (written, stream) in zip(runs, expected, strict=True):
        assert torch.equal(run.answer, written)
        assert torch.equal(run.stream, stream)


@torch.no_grad()
def test_prompts_that_do_not_fit_together_are_read_in_parts(model: Any) -> None:
    rng = random.Random(3)
    runs = [Run(model, rng, 0) for _ in range(4)]
    expected = [run.alone() for run in runs]
    decoder, tried = decoder_of(model, [], []), list[int]()
    own = decoder.prefill

    def prefill(prompts: Any, stacked: Any) -> None:
        tried.append(len(prompts))
        own(prompts, stacked)
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    decoder.prefill = prefill
    write(runs, decoder, rng)
    assert tried == [4, 2, 1, 3, 1, 2, 1, 1], "not again before somebody is done"
    for run, (written, stream) in zip(runs, expected, strict=True):
        assert torch.equal(run.answer, written)
        assert torch.equal(run.stream, stream)


@torch.no_grad()
@pytest.mark.parametrize("fails", ["planned", "read"])
def test_a_run_that_does_not_fit_by_itself_is_left_alone(model: Any, fails: str) -> None:
    run = Run(model, random.Random(0), 0)
    run.go_on()
    free = 0.0 if fails == "planned" else math.inf
    decoder = decoder_of(model, [], [], free_bytes=lambda: free)

    def prefill(_prompts: Any, _stacked: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    decoder.prefill = prefill
    assert run.request is not None
    answered, shared = decoder.answer([run.request], SimpleNamespace(blocks=[]))  # type: ignore[arg-type]
    assert (answered, shared) == ([run.request], 0)
    assert run.request.is_left_alone
