"""Which inputs of a layer does a run's dropout keep, where its tokens lie among others?

A GPU draws every number of a mask from a counter: the seed, how much was drawn before and the
number's place in the run's own padded batch say what it is. So a run only counts on, and the masks
of all runs are computed at once, for the tokens that there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rf_notebook.training.fused.transfer import numbers, on_device

#: Numbers that are drawn at once, and threads of a block of torch's kernel.
_QUAD, _THREADS = 4, 256
#: Numbers that a thread of it draws in turn: a vector of 16 bytes of one type or another.
_WIDES = (4, 8)
#: [b, l] and width of what is compared with torch once: few numbers, and some for each thread.
_TRIED, _TRIED_WIDTH = ((2, 5), (4, 300)), 4096
#: Philox4x32-10 as curand has it, with the places that torch's fused dropout gives to threads: a
#: thread draws ``wide`` numbers in turn, then those as far ahead as all threads draw at once.
#: Source: torch 2.13, ``aten/src/ATen/native/cuda/Dropout.cu``; curand's ``curand_philox4x32_x.h``.
_SOURCE = """
typedef unsigned int u32;
typedef unsigned long long u64;
extern "C" __global__ void masks(
    u32* kept, const long long* places, const long long* owners, const u64* seeds,
    const u64* threads, const u64* drawn, const float* shares,
    int tokens, int width, int members, int wide)
{
    int token = blockIdx.x, layer = blockIdx.z, owner = owners[token], quads = width / 4;
    int quad = blockIdx.y * blockDim.x + threadIdx.x;
    if (quad >= quads) return;
    u64 number = ((u64)places[token] * quads + quad) * 4;
    u64 of_thread = number / wide, all = threads[owner];
    u64 round = of_thread / all * (wide / 4) + number % wide / 4 + drawn[layer * members + owner] / 4;
    u64 thread = of_thread % all, seed = seeds[owner];
    u32 x = (u32)round, y = (u32)(round >> 32), z = (u32)thread, w = (u32)(thread >> 32);
    u32 a = (u32)seed, b = (u32)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        u32 low = 0xD2511F53u * x, high = __umulhi(0xD2511F53u, x);
        u32 low_z = 0xCD9E8D57u * z, high_z = __umulhi(0xCD9E8D57u, z);
        x = high_z ^ y ^ a; y = low_z; z = high ^ w ^ b; w = low;
        a += 0x9E3779B9u; b += 0xBB67AE85u;
    }
    float share = shares[layer * members + owner];
    const float unit = 2.3283064e-10f, half = unit / 2.0f;
    u32 kept_x = x * unit + half < share, kept_y = y * unit + half < share;
    u32 kept_z = z * unit + half < share, kept_w = w * unit + half < share;
    kept[((u64)layer * tokens + token) * quads + quad] = kept_x | kept_y << 8 | kept_z << 16 | kept_w << 24;
}
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer before which a run has dropout."""

    path: str
    width: int
    """Of its inputs."""
    dtype: torch.dtype
    """In which inputs meet dropout."""
    dropped: float
    """The share that is left out."""


class _Draw(NamedTuple):
    """One mask."""

    width: int
    share: float
    """That is kept."""
    wide: int
    """Numbers that a thread draws in turn."""
    after: int
    """What was drawn before it of the same batch, as torch counts it."""


class Counted(Mapping[str, Tensor]):
    """By layer: which inputs a run's dropout keeps, [b, l, in]; computed when asked for."""

    def __init__(
        self,
        begin: tuple[int, int],
        shape: Sequence[int],
        draws: Mapping[str, _Draw],
        device: torch.device,
    ) -> None:
        """Nothing is computed.

        Args:
            begin: The seed of the run's stream, and what it had drawn before.
            shape: [b, l].
            draws: By layer.
            device: Where the model is.
        """
        (self.seed, self.begin), self.shape = begin, tuple(shape)
        self.draws, self.device = draws, device

    @property
    def places(self) -> int:
        """Tokens of the batch, with padding."""
        return math.prod(self.shape)

    def __getitem__(self, path: str) -> Tensor:
        every = torch.arange(self.places, device=self.device)
        mask = masks_at([self], [path], every, torch.zeros_like(every))[path]
        return mask.view(*self.shape, -1)

    def __contains__(self, path: object) -> bool:
        return path in self.draws

    def __iter__(self) -> Iterator[str]:
        return iter(self.draws)

    def __len__(self) -> int:
        return len(self.draws)


class Dropouts:
    """Of one run."""

    def __init__(self, layers: Sequence[Layer], device: torch.device) -> None:
        """Nothing is drawn.

        Args:
            layers: In the order of a forward.
            device: Where the model is.
        """
        self._layers, self._device = layers, device

    def draw(self, shape: Sequence[int]) -> Mapping[str, Tensor]:
        """The masks [b, l, in] that the run draws now, from its own stream.

        Args:
            shape: [b, l].
        """
        wides = [_wide(self._device, dtype) for dtype in {layer.dtype for layer in self._layers}]
        most = max((wide or 0 for wide in wides), default=0)
        if all(wides) and all(layer.width % most == 0 for layer in self._layers):
            return self._counted(shape)
        return self._drawn(shape)

    def _drawn(self, shape: Sequence[int]) -> dict[str, Tensor]:
        kept, ones = {}, dict[tuple[int, torch.dtype], Tensor]()
        for layer in self._layers:
            like = layer.width, layer.dtype
            if like not in ones:
                ones[like] = torch.ones(*shape, layer.width, dtype=layer.dtype, device=self._device)
            kept[layer.path] = _kept(ones[like], layer.dropped)
        return kept

    def _counted(self, shape: Sequence[int]) -> Counted:
        draws, moves = _plan(self._layers, math.prod(shape), self._device)
        generator = _generator(self._device)
        at = generator.get_offset()
        generator.set_offset(at + moves)
        return Counted((generator.initial_seed(), at), shape, draws, self._device)


def masks_at(
    runs: Sequence[Counted | None], paths: Sequence[str], places: Tensor, owners: Tensor
) -> dict[str, Tensor]:
    """By layer: what is kept of the inputs of tokens of several runs, [T, in].

    Args:
        runs: None for one without dropout.
        paths: The layers.
        places: [T]: row * length + column of each token in its own run's batch.
        owners: [T]: whose token it is.
    """
    found = dict[str, Tensor]()
    some = {
        path: next(run.draws[path] for run in runs if run and path in run.draws) for path in paths
    }
    for width, wide in {(draw.width, draw.wide): None for draw in some.values()}:
        own = [path for path, draw in some.items() if (draw.width, draw.wide) == (width, wide)]
        draws = [[run.draws.get(path) if run else None for run in runs] for path in own]
        seeds = [run.seed if run else 0 for run in runs]
        threads = [_threads(run.places * width, places.device)[0] if run else 1 for run in runs]
        before = [
            draw.after + run.begin if run and draw else 0
            for of_layer in draws
            for run, draw in zip(runs, of_layer, strict=True)
        ]
        shares = [draw.share if draw else 2.0 for of_layer in draws for draw in of_layer]
        whole = [np.asarray(seeds, dtype=np.uint64).view(np.int64), threads, before]
        on = on_device([np.asarray(one, dtype=np.int64) for one in whole], places.device)
        masks = torch.empty(len(own), len(places), width, dtype=torch.bool, device=places.device)
        _kernel(places.device.index or 0)(
            grid=(len(places), -(-width // (_QUAD * _THREADS)), len(own)),
            block=(_THREADS, 1, 1),
            args=[
                *(masks, places, owners, *on),
                numbers(shares, torch.float32, places.device),
                *(len(places), width, len(runs), wide),
            ],
        )
        found |= zip(own, masks, strict=True)
    return found


def _plan(
    layers: Sequence[Layer], places: int, device: torch.device, wide: int | None = None
) -> tuple[dict[str, _Draw], int]:
    moves = {width: _threads(places * width, device)[1] for width in {one.width for one in layers}}
    wides = {dtype: wide or _wide(device, dtype) or 0 for dtype in {one.dtype for one in layers}}
    draws, after = {}, 0
    for layer in layers:
        draws[layer.path] = _Draw(layer.width, 1.0 - layer.dropped, wides[layer.dtype], after)
        after += moves[layer.width]
    return draws, after


def _kept(ones: Tensor, share: float) -> Tensor:
    """What dropout keeps, drawn as ``nn.functional.dropout`` draws it.

    Source: torch 2.13, ``Dropout.cpp``: on a GPU it is ``native_dropout``, which has the mask.
    """
    if ones.is_cuda:
        return torch.native_dropout(ones, share, True)[1]
    return nn.functional.dropout(ones, share) != 0


# ---- torch's kernel


def _generator(device: torch.device) -> torch.Generator:
    return torch.cuda.default_generators[device.index or 0]


@cache
def _kernel(device: int) -> Any:
    """Compiled in memory; raises whatever torch raises where it cannot."""
    with torch.cuda.device(device):
        return torch.cuda._compile_kernel(_SOURCE, "masks")  # noqa: SLF001 - torch has no other name for it yet


@cache
def _most_threads(device: torch.device) -> int:
    properties = torch.cuda.get_device_properties(device)
    blocks = properties.max_threads_per_multi_processor // _THREADS
    return int(_THREADS * properties.multi_processor_count * blocks)


def _threads(numbers: int, device: torch.device) -> tuple[int, int]:
    """With how many threads torch draws so many numbers, and by how much that moves the stream."""
    threads = min(_most_threads(device), _THREADS * -(-numbers // _THREADS))
    return threads, ((numbers - 1) // (threads * _QUAD) + 1) * _QUAD


@cache
def _wide(device: torch.device, dtype: torch.dtype) -> int | None:
    """How many numbers a thread of torch's dropout draws in turn.

    None where masks cannot be computed: for want of a compiler, or because they come out otherwise
    than torch draws them, which is tried here once.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    generator = _generator(device)
    state = generator.get_state()
    try:
        for wide in _WIDES:
            if all(_is_equal(shape, dtype, wide, device) for shape in _TRIED):
                return wide
    except Exception:  # noqa: BLE001 - whatever a torch without this raises, torch draws the masks
        return None
    finally:
        generator.set_state(state)
    return None


def _is_equal(shape: Sequence[int], dtype: torch.dtype, wide: int, device: torch.device) -> bool:
    generator = _generator(device)
    layers = [
        Layer(name, _TRIED_WIDTH, dtype, dropped) for name, dropped in (("a", 0.05), ("b", 0.5))
    ]
    begin = generator.get_offset()
    ones = torch.ones(*shape, _TRIED_WIDTH, dtype=dtype, device=device)
    expected = {layer.path: _kept(ones, layer.dropped) for layer in layers}
    draws, moves = _plan(layers, math.prod(shape), device, wide)
    counted = Counted((generator.initial_seed(), begin), shape, draws, device)
    is_equal = generator.get_offset() == begin + moves
    return is_equal and all(torch.equal(counted[path], mask) for path, mask in expected.items())
