"""How does a small joint pass keep a GPU busy?

A pass over few tokens is computed faster than the host can launch its thousands of kernels. So the
kernels of the backbone's forward and backward are recorded once for each size, as CUDA graphs, and
a pass launches them all at once. Rows are filled up to few sizes, so that few are recorded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from rf_notebook.core.foreground import undisturbed
from rf_notebook.training.fused.linear import Part, Spread, Way, way_of
from rf_notebook.training.fused.packed import PackedPass, Room

if TYPE_CHECKING:
    from rf_notebook.training.fused.adapters import AdapterBlock
    from rf_notebook.training.fused.attention import AttentionWay
    from rf_notebook.training.fused.request import Autocast, Forward

MadeT = TypeVar("MadeT")

#: Tokens above which computing takes longer than launching, and above which the masks of dropout
#: would take too much memory.
_MOST_TOKENS, _MOST_WITH_DROPOUT = 8192, 2048
#: Recording takes as long as several passes: where not so many may follow, a size is recorded when
#: it is seen a second time, else at once.
_MANY = 100
#: Sizes that are recorded at most.
_MOST_RECORDED = 32


class Replay:
    """Work on the device that was recorded once."""

    def __init__(self, work: Callable[[], Any], pool: Any, stream: Any) -> None:
        """Record it.

        A thread that waits for the whole device meanwhile, or draws random numbers on it, fails, and
        so does the recording: see ``undisturbed``.

        Args:
            work: Allocates nothing that was not allocated before, launches the same each time.
            pool: Of memory, shared by what is never in use at the same time.
            stream: On which the work was done before.
        """
        self._graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        own = generator.graphsafe_get_state()
        # Nothing is drawn. A recording that fails would leave the generator unusable.
        generator.graphsafe_set_state(generator.clone_state())
        try:
            with torch.cuda.graph(
                self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
            ):
                self.result = work()
        except BaseException:
            with suppress(Exception):  # torch's allocator would go on as if it were recording
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)  # noqa: SLF001 - it has no other name
            raise
        finally:
            generator.graphsafe_set_state(own)

    def replay(self) -> None:
        """Do it again; ``result`` is where it was."""
        self._graph.replay()


class Plan(NamedTuple):
    """How a pass is to be recorded, or was: equal for passes that one recording serves."""

    room: Room
    way: Way
    attention: AttentionWay
    autocast: Autocast
    layout: Hashable
    """Of the block of adapters."""
    made_up: float | None
    """By how much inputs that dropout keeps are raised; None without dropout."""
    has_backward: bool
    is_compiled: bool = False

    @property
    def program(self) -> Hashable:
        """Equal for plans that one compiled layer serves; None where none is compiled for."""
        if not self.has_backward:
            return None
        return (PackedPass.shape, self.way, self.made_up is not None)


class Rows:
    """Copies of a block's weights and their gradients that stay where they are.

    Blocks come and go with each turn; recorded work knows addresses only.
    """

    def __init__(self, block: AdapterBlock, dtype: torch.dtype) -> None:
        self.weights = torch.zeros_like(block.weights, dtype=dtype)
        self.gradients = torch.zeros_like(self.weights)
        self._leaves = [one.detach().requires_grad_() for one in block.stacked(self.weights)]
        self._places = list(block.stacked(self.gradients))
        self.pairs = dict(
            zip(block.paths, zip(self._leaves[::2], self._leaves[1::2], strict=True), strict=True)
        )

    def differentiate(self, hidden: Tensor, gradient: Tensor) -> None:
        """Put the gradients of all weights to their places."""
        found = torch.autograd.grad(hidden, self._leaves, gradient, allow_unused=True)
        pairs = [
            (place, one) for place, one in zip(self._places, found, strict=True) if one is not None
        ]
        torch._foreach_copy_([place for place, _ in pairs], [one for _, one in pairs])


class Recorded:
    """The forward and, where there is one, the backward of the backbone for one plan."""

    def __init__(
        self, owner: RecordedPasses, plan: Plan, laid: PackedPass, block: AdapterBlock
    ) -> None:
        """Done once as usual, then recorded: what is tuned and compiled at first is so by then.

        Args:
            owner: Has what all recordings of a model share.
            plan: Which sizes it serves.
            laid: A pass of these sizes.
            block: Its adapters.
        """
        self._owner, self._plan = owner, plan
        self._rows = owner.rows_of(plan, block)
        self._inputs = {name: one.clone() for name, one in self._of(laid, block).items()}
        self._given = laid.arguments(owner.backbone)
        self._given |= {name: self._inputs[name] for name in self._given.keys() & self._inputs}
        self._kept = owner.masks_of(self._rows, plan)
        self._parts = self._parts_of(block, laid)
        self._fill(laid, block)
        with owner.beside():
            hidden = self._hidden()
            if plan.has_backward:
                self._rows.differentiate(hidden, torch.zeros_like(hidden))
        self._forward: Replay = owner.recorder(self._hidden, owner.pool, owner.stream)
        if not plan.has_backward:
            return
        rows = self._forward.result[0]
        self._gradient = owner.shared("gradient", rows.shape, rows.dtype)
        self._backward: Replay = owner.recorder(self._differentiate, owner.pool, owner.stream)

    def forward(self, laid: PackedPass, block: AdapterBlock) -> Tensor:
        """The hidden states [1, T, v].

        With a backward to come they are a leaf, and the next pass overwrites them.
        """
        self._fill(laid, block)
        self._forward.replay()
        hidden = self._forward.result.detach()
        return hidden.requires_grad_() if self._plan.has_backward else hidden.clone()

    def backward(self, gradient: Tensor, block: AdapterBlock) -> None:
        """From the gradient [1, T, v] of the hidden states to those of the block's weights."""
        self._gradient.copy_(gradient[0])
        self._backward.replay()
        block.gradients.add_(self._rows.gradients)

    def _hidden(self) -> Tensor:
        owner = self._owner
        owner.set_parts(self._parts)
        with torch.set_grad_enabled(self._plan.has_backward), self._plan.autocast.entered():
            hidden: Tensor = owner.backbone(**self._given).last_hidden_state
        return hidden

    def _differentiate(self) -> None:
        self._rows.differentiate(self._forward.result, self._gradient.unsqueeze(0))

    def _of(self, laid: PackedPass, block: AdapterBlock) -> dict[str, Tensor]:
        """What differs from pass to pass, by name: the backbone's arguments and the parts'."""
        spread = Spread.of(laid.tokens, block.weights.device)
        scale = block.only_scale(self._rows.weights.dtype)
        assert scale is not None
        given = laid.arguments(self._owner.backbone)
        return {name: one for name, one in given.items() if torch.is_tensor(one)} | {
            "ends of members": spread.ends,
            "scale": scale,
            "factor": scale.index_select(0, spread.members).unsqueeze(1),
        }

    def _fill(self, laid: PackedPass, block: AdapterBlock) -> None:
        given = self._of(laid, block)
        places = [self._rows.weights, *(self._inputs[name] for name in given), *self._kept.values()]
        masks = [laid.kept(path, laid.requests) for path in self._kept]
        found = [mask for mask in masks if mask is not None]
        torch._foreach_copy_(places, [block.weights, *given.values(), *found])

    def _parts_of(self, block: AdapterBlock, laid: PackedPass) -> dict[str, tuple[Part]]:
        inputs, plan = self._inputs, self._plan
        spread = Spread.of(laid.tokens, block.weights.device)
        spread = replace(spread, tokens=(), ends=inputs["ends of members"])
        return {
            path: (
                Part(
                    down=down,
                    up=up,
                    scale=inputs["scale"],
                    factor=inputs["factor"],
                    way=plan.way,
                    spread=spread,
                    kept=self._kept.get(path),
                    made_up=1.0 if plan.made_up is None else plan.made_up,
                    dropped_in=block.input_dtype(path, plan.autocast),
                ),
            )
            for path, (down, up) in self._rows.pairs.items()
        }


@dataclass(slots=True)
class RunningPass:
    """See Running."""

    recorded: Recorded
    owner: RecordedPasses
    block: AdapterBlock
    hidden: Tensor

    def backward(self, gradient: Tensor) -> None:
        """See Running."""
        self.recorded.backward(gradient, self.block)

    def let_go(self) -> None:
        """See Running."""
        self.owner.in_use = False


class RecordedPasses:
    """Of one joint model."""

    recorder: Any = Replay
    """For tests, which have no GPU: what records."""
    is_possible = torch.cuda.is_available()

    def __init__(
        self,
        backbone: nn.Module,
        set_parts: Callable[[Mapping[str, Sequence[Part]]], None],
        log: logging.Logger,
    ) -> None:
        """Nothing is recorded.

        Args:
            backbone: Of the joint model.
            set_parts: Lets its layers serve these adapters.
            log: The experiment's.
        """
        self.backbone, self.set_parts = backbone, set_parts
        self._log = log
        on_gpu = next(backbone.parameters()).is_cuda
        self.stream: Any = torch.cuda.Stream() if on_gpu else None
        self.pool: Any = torch.cuda.graph_pool_handle() if on_gpu else None
        self._pool_of_work: Any = torch.cuda.graph_pool_handle() if on_gpu else None
        self._seen: Counter[Plan] = Counter()
        self._recorded: dict[Plan, Recorded] = {}
        self._rows: dict[tuple[Hashable, torch.dtype], Rows] = {}
        """By the layout of a block and the type of the products."""
        self._shared: dict[Hashable, Tensor] = {}
        self.in_use = False
        """Whether a backward is still to come; all have their memory in common."""
        self.forwards_left = 0
        """Joint forwards that are still to come at most."""
        self.held_bytes = 0
        """Of the device, that nothing else can use."""

    def plan(
        self, requests: Sequence[Forward], block: AdapterBlock, attention: AttentionWay
    ) -> Plan | None:
        """How a pass would be recorded; None for one that is not.

        Args:
            requests: Of all members of the block, in its order; their sizes are known.
            block: The only one.
            attention: How tokens attend.
        """
        first = requests[0]
        if not self.is_possible or self.in_use or any(r.embeddings is not None for r in requests):
            return None
        room = Room.of(requests, attention)
        raised = {
            block.share(path, row) if path in request.kept else 1.0
            for row, request in enumerate(requests)
            for path in block.paths
        }
        drops = raised != {1.0}
        dtype = first.autocast.compute_dtype(block.weights.dtype)
        way = _way(block, dtype)
        is_too_large = room.tokens > (_MOST_WITH_DROPOUT if drops else _MOST_TOKENS)
        if way is None or is_too_large or len(raised) > 1 or block.only_scale(dtype) is None:
            return None
        made_up = raised.pop() if drops else None
        return Plan(room, way, attention, first.autocast, block.layout, made_up, first.needs_grad)

    def find(self, plan: Plan, laid: PackedPass, block: AdapterBlock) -> Recorded | None:
        """What serves a plan, recorded now if that is due; None while it is not.

        Args:
            plan: Of a pass.
            laid: The pass.
            block: Its adapters.
        """
        known = self._recorded.pop(plan, None)
        if known is not None:
            self._recorded[plan] = known  # the newest use comes last
            return known
        self._seen[plan] += 1
        is_due = (self.forwards_left >= _MANY and plan.has_backward) or self._seen[plan] > 1
        if not is_due:
            return None

        def recorded() -> Recorded:
            if len(self._recorded) >= _MOST_RECORDED:
                self._drop_oldest()
            with self.counted():
                return Recorded(self, plan, laid, block)

        made = self._made(recorded)
        if made is not None:
            self._recorded[plan] = made
        return made

    def _drop_oldest(self) -> None:
        """Free what was not used for the longest time."""
        del self._recorded[next(iter(self._recorded))]
        layouts = {plan.layout for plan in self._recorded}
        for key in [key for key in self._rows if key[0] not in layouts]:
            del self._rows[key]

    def repeatable(self, work: Callable[[], Any]) -> Replay | None:
        """Work that is done again and again over the same memory; None when it cannot be recorded now.

        Args:
            work: Nothing that it gives is in use when it is done again.
        """

        def made() -> Replay:
            with self.beside():
                work()
            replay: Replay = self.recorder(work, self._pool_of_work, self.stream)
            return replay

        return self._made(made) if self.is_possible else None

    def _made(self, make: Callable[[], MadeT]) -> MadeT | None:
        """What ``make`` gives; None when something else is at work, and then nothing is touched."""
        with undisturbed() as is_quiet:
            if not is_quiet:
                return None
            try:
                return make()
            except Exception as error:  # noqa: BLE001 - whatever torch raises, passes are done without
                self._log.warning("joint passes are not recorded: %r", error)
                self.is_possible = False
                self.let_go()
                return None

    def begin(self, recorded: Recorded, laid: PackedPass, block: AdapterBlock) -> RunningPass:
        """Replay the forward of a pass."""
        self.in_use = True
        return RunningPass(recorded, self, block, recorded.forward(laid, block))

    def ran_out(self) -> None:
        """Record no more where the memory is needed for other things."""
        if self._recorded:
            self._log.info("joint passes are not recorded any more: their memory is needed")
            self.is_possible = False
        self.let_go()

    def let_go(self) -> None:
        """Free what recordings hold."""
        self._recorded.clear()
        self._rows.clear()
        self._shared.clear()
        self.in_use, self.held_bytes = False, 0

    # ---- what recordings share

    def rows_of(self, plan: Plan, block: AdapterBlock) -> Rows:
        """Of a plan's adapters."""
        dtype = plan.autocast.compute_dtype(block.weights.dtype)
        key = (plan.layout, dtype)
        if key not in self._rows:
            self._rows[key] = Rows(block, dtype)
        return self._rows[key]

    def masks_of(self, rows: Rows, plan: Plan) -> dict[str, Tensor]:
        """By layer: where [T, in] masks of dropout go."""
        if plan.made_up is None:
            return {}
        total = plan.room.tokens
        return {
            path: self.shared(path, (total, down.shape[2]), torch.bool, _MOST_WITH_DROPOUT)
            for path, (down, _) in rows.pairs.items()
        }

    def shared(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, most: int = _MOST_TOKENS
    ) -> Tensor:
        """A tensor [T, width] that others use at other times."""
        key = (name, shape[1], dtype)
        if key not in self._shared:
            device = next(self.backbone.parameters()).device
            self._shared[key] = torch.zeros(most, shape[1], dtype=dtype, device=device)
        return self._shared[key][: shape[0]]

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Add what a recording keeps for itself."""
        if self.stream is None:
            yield
            return
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        yield
        torch.cuda.empty_cache()
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated() - before
        self.held_bytes += max(0, kept)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """On the stream on which is recorded."""
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)


def _way(block: AdapterBlock, dtype: torch.dtype) -> Way | None:
    """How products are computed whatever the members' numbers of tokens; None where that depends."""
    if block.weights.shape[0] == 1:
        return Way.EQUAL
    uneven = (8, 16)
    ways = {way_of(uneven, dtype, widths, block.weights.device) for widths in block.widths}
    return Way.GROUPED if ways == {Way.GROUPED} else None
