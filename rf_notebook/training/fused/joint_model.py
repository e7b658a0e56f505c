"""The base model as all members of a group see it: one forward and one backward for all of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rf_notebook.training import memory
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.fused.attention import (
    PACKED,
    AttentionWay,
    attention_way,
    why_not_packed,
)
from rf_notebook.training.fused.compiled import CompiledLayers
from rf_notebook.training.fused.decoder import ADDS_MASK, JointDecoder
from rf_notebook.training.fused.joint_cache import JointCache, LeftPadded
from rf_notebook.training.fused.layout import (
    mask_with_past,
    padded_left,
    positions_of,
    rows_of,
    tokens_of,
)
from rf_notebook.training.fused.linear import Part, Spread, StackedLinear, way_of
from rf_notebook.training.fused.memory_limits import (
    Kept,
    MemoryLimits,
    cache_bytes_of,
    layer_weights_of,
    token_bytes_of,
)
from rf_notebook.training.fused.packed import PackedPass
from rf_notebook.training.fused.padded import PaddedPass
from rf_notebook.training.fused.passes import Graph, JointPass, Tokens
from rf_notebook.training.fused.recorded import Plan, RecordedPasses
from rf_notebook.training.fused.request import Forward
from rf_notebook.training.fused.transfer import numbers, on_device

if TYPE_CHECKING:
    from rf_notebook.training.fused.adapters import AdapterBlock, Stacked
    from rf_notebook.training.fused.request import Autocast, NextTokens


#: What prompts are padded to, by type of device: a GPU took up to a second for the first attention
#: over prompts of each length.
_PROMPT_MULTIPLE = {"cuda": 64}


@dataclass(slots=True)
class Counts:
    """What a joint model has done; tests and benchmarks read it."""

    forwards: int = 0
    requests: int = 0
    """That were answered by them."""
    generated: int = 0
    """Joint forwards of tokens or prompts of runs that generate."""
    generated_for: int = 0
    """Requests that were answered by those."""
    own_seconds: float = 0.0
    """Spent in the members' own code: data, losses, optimizers, trl's and transformers' Python."""
    setup_seconds: float = 0.0
    """Spent on recording passes."""
    replayed: int = 0
    """Joint forwards whose kernels had been recorded."""
    too_large: int = 0
    """Joint passes that ran out of memory and were done again in other ways."""


class JointModel:
    """A tree over a base model's weights whose adapted layers serve several runs."""

    def __init__(self, base: Any, log: logging.Logger) -> None:
        """Only modules are made; weights are the base's.

        Args:
            base: The resident model.
            log: The experiment's.
        """
        self._log = log
        self.broken: str | None = None
        """Why it is out of use: a joint pass failed by something else than memory."""
        self._tree = tree_clone(base)
        self.backbone: nn.Module = getattr(self._tree, self._tree.base_model_prefix)
        self._tree.requires_grad_(False)
        self._tree.train()
        self._config = self._tree.config.get_text_config()
        self._own_attention = self._config._attn_implementation  # noqa: SLF001 - where transformers keeps it
        self.why_padded = why_not_packed(self._tree, self.backbone)
        """Why its rows are padded to the longest; empty when they are packed."""
        if self.why_padded:
            log.info("joint batches are padded: %s", self.why_padded)
        self._layers: dict[str, StackedLinear] = {}
        self._has_parts = False
        self._order: list[str] = []
        self._generation = JointCache()
        self._decoders: dict[Autocast, JointDecoder] = {}
        """Of runs that write, by their precision."""
        self._token_parts: tuple[Hashable, Mapping[str, Sequence[Part]]] | None = None
        """Of the last joint forward of single tokens, and for whom it was: the next is for the same."""
        self._recomputing: list[Any] = []
        """The modules that can compute their activations again in the backward; found when it is
        first needed."""
        can_recompute = bool(getattr(self._tree, "supports_gradient_checkpointing", False))
        device = next(self._tree.parameters()).device
        self._prompt_multiple = _PROMPT_MULTIPLE.get(device.type, 1)
        self._limits = MemoryLimits(
            "cuda" if device.type == "cuda" else "cpu",
            can_recompute=can_recompute,
            free=self._free_bytes,
            token_bytes=token_bytes_of(self._tree),
            layer_weights=layer_weights_of(self._tree),
        )
        self.notes: list[str] = []
        """What the user is to be told; whoever tells it takes it out."""
        self._recomputes = False
        """Whether that was told."""
        self._ran_out_with = ""
        """What torch said when it last ran out of memory."""
        self._compiled = CompiledLayers(self._tree, self.backbone, log)
        self._recorded = RecordedPasses(self.backbone, self._set_parts, log)
        self.counts = Counts()

    def route(self, paths: Sequence[str]) -> None:
        """Let these layers of the backbone serve the members' adapters."""
        new = [path for path in paths if path not in self._layers]
        for path in new:
            parent, _, name = path.rpartition(".")
            self._layers[path] = StackedLinear(self.backbone.get_submodule(path))
            setattr(self.backbone.get_submodule(parent), name, self._layers[path])
        if new:
            self._order = self._watched_order()

    def order(self) -> Sequence[str]:
        """The routed layers in the order in which a forward uses them.

        Runs draw their dropout in this order.
        """
        return self._order

    def break_down(self, error: BaseException) -> None:
        """Take the model out of use; its runs train in turns from now on."""
        self._log.warning("a joint step failed, its runs continue in turns: %r", error)
        self.broken = f"a joint step failed: {type(error).__name__}: {error}"[:300]

    def expect(self, forwards: int) -> None:
        """The most joint forwards that may follow: whether compiling and recording pay."""
        self._compiled.forwards_left = self._recorded.forwards_left = forwards

    def forward(
        self, requests: Sequence[Forward], stacked: Stacked, waiting: Sequence[Graph] = ()
    ) -> tuple[list[Forward], list[Graph]]:
        """Answer requests of one precision, all with or all without gradients.

        Not more than there is room for next to graphs that keep memory until their backward; a
        request that does not fit by itself is left to its run, which then has to continue first.

        Args:
            requests: At least one.
            stacked: Where the members' adapters lie.
            waiting: Graphs whose backward can be done before the rest is answered.

        Returns:
            The requests that were answered, none only if there are such graphs; and the new graphs
            to go backward through.
        """
        left, answered, graphs = list(requests), list[Forward](), list[Graph]()
        while left:
            in_use = sum(graph.tokens for graph in (*waiting, *graphs))
            part, kept = self._limits.next_pass(left)
            if in_use and self._limits.has_to_wait(part, kept):
                break
            if self._limits.is_too_large(part, kept, in_use):
                if in_use:
                    break
                if len(part) == 1:
                    part[0].is_left_alone = True  # with its own way of saving memory
                    return [*answered, *part], graphs
            one_pass = self._continue if kept is Kept.CACHE else self.pass_together
            made = self._tried(one_pass, part, stacked, kept, in_use=in_use)
            if made is not None:
                graphs += made
                answered += part
                left = [request for request in left if request not in part]
        return answered, graphs

    def backward(self, graph: Graph, stacked: Stacked, others: Sequence[Graph] = ()) -> None:
        """Go on from the leaves where the runs' own backwards ended, into the members' gradients.

        Args:
            graph: Of which forward.
            stacked: Where the members' adapters lie.
            others: What waits for the same; after running out of memory their forwards are done
                again, too.
        """
        if graph.outputs:
            try:
                self._backward(graph)
            except torch.OutOfMemoryError as error:
                in_use = sum(one.tokens for one in others)
                for one in (graph, *others):
                    one.let_go()
                self._ran_out(error, graph.requests, graph.kept, in_use)
            else:
                return
        left = list(graph.requests)
        while left:
            part, kept = self._limits.next_pass(left)
            if len(part) == 1 and self._limits.is_too_large(part, kept):
                part[0].error = torch.OutOfMemoryError(
                    self._ran_out_with
                )  # its own backward is done, no way back
            elif self._tried(self._forward_and_backward, part, stacked, kept) is None:
                continue
            left = [request for request in left if request not in part]

    # ---- one pass

    def pass_together(
        self, requests: Sequence[Forward], stacked: Stacked, kept: Kept
    ) -> list[Graph]:
        """A pass of training, or of a reference.

        Returns the graph to go backward through, if there is one.
        """
        first = requests[0]
        if first.needs_grad:
            self.let_go_of_tokens()
        ordered = sorted(requests, key=lambda request: self._sorting(request, stacked))
        is_packed, way = first.sizes is not None, self._attention_way(first)
        self._attend_in(PACKED if is_packed else self._own_attention)
        self._let_recompute(kept is Kept.LAYER_INPUTS)
        plan = self._plan(ordered, stacked, kept, way)
        if plan is not None:
            self._compiled.choose(plan.program, is_dynamic=True)
            plan = plan._replace(is_compiled=self._compiled.is_on)
        laid: JointPass
        made = self._replayed(plan, ordered, stacked) if plan is not None else None
        if made is not None:
            laid, graph, hidden = made
        else:
            laid = PackedPass(ordered, way) if is_packed else PaddedPass(ordered)
            graph = self._graph(ordered, laid, stacked, kept)
            self._set_parts(graph.parts)
            if plan is None:
                shape = _program(laid, graph) if kept is Kept.ACTIVATIONS else None
                self._compiled.choose(shape, is_dynamic=is_packed, sizes=laid.sizes)
            with torch.set_grad_enabled(first.needs_grad), first.autocast.entered():
                hidden = self.backbone(**laid.arguments(self.backbone)).last_hidden_state
        with torch.set_grad_enabled(first.needs_grad), first.autocast.entered():
            outputs = list(laid.outputs(hidden))
        # when the pass is done again, all have what is theirs
        if not any(request.leaves for request in ordered):
            for output in outputs:
                laid.give(output)
        self.counts.forwards += 1
        self.counts.requests += len(ordered)
        graph.outputs = [one for one in outputs if one.joint.requires_grad]
        if not graph.outputs:
            graph.let_go()
        return [graph] if graph.outputs else []

    def _plan(
        self, ordered: Sequence[Forward], stacked: Stacked, kept: Kept, way: AttentionWay
    ) -> Plan | None:
        """How a pass would be recorded: one of all members of the only block."""
        if ordered[0].sizes is None or kept is Kept.LAYER_INPUTS:
            return None
        is_all = [request.member for request in ordered] == list(stacked.place)
        use_it = all(request.uses_adapter for request in ordered)
        if not (is_all and use_it) or len(stacked.blocks) != 1:
            return None
        return self._recorded.plan(ordered, stacked.blocks[0], way)

    def _replayed(
        self, plan: Plan, ordered: Sequence[Forward], stacked: Stacked
    ) -> tuple[PackedPass, Graph, Tensor] | None:
        """The pass, its graph and the hidden states; None while it is not recorded."""
        (block,) = stacked.blocks
        laid = PackedPass(ordered, plan.attention, plan.room)
        began = time.perf_counter()
        recorded = self._recorded.find(plan, laid, block)
        self.counts.setup_seconds += time.perf_counter() - began
        if recorded is None:
            return None
        self._set_parts({})
        running = self._recorded.begin(recorded, laid, block)
        self.counts.replayed += 1
        graph = Graph(list(ordered), Kept.ACTIVATIONS, running=running)
        return laid, graph, running.hidden

    def decode(self, requests: Sequence[NextTokens], stacked: Stacked) -> list[NextTokens]:
        """One token further for runs that write, as many as there is room for at once.

        Returns those that were answered. When the room that was planned is not there after all,
        each continues by itself.
        """
        answered: list[NextTokens] = []
        groups: dict[Autocast, list[NextTokens]] = {}
        for request in requests:
            groups.setdefault(request.prompt.autocast, []).append(request)
        for key in [key for key in self._decoders if key not in groups]:
            del self._decoders[key]
        for key, same in groups.items():
            same.sort(key=lambda request: self._sorting(request.prompt, stacked))
            if key not in self._decoders:
                self._decoders[key] = JointDecoder(
                    self._prefill,
                    self._step,
                    self._record_step,
                    self._free_bytes,
                    cache_bytes_of(self._tree, key.compute_dtype(self._tree.dtype)),
                    self._log,
                )
            try:
                done, stepped = self._decoders[key].answer(same, stacked)
            except torch.OutOfMemoryError as error:
                self._log.info("runs write one after another, for there is no room: %s", error)
                error.__traceback__ = None
                del self._decoders[key]
                memory.collect()
                for request in same:
                    request.is_left_alone = True
                answered += same
            else:
                answered += done
                self.counts.generated += stepped > 0
                self.counts.generated_for += stepped
        return answered

    def _prefill(self, prompts: Sequence[Forward], stacked: Stacked) -> None:
        try:
            self._continue(prompts, stacked, Kept.CACHE, multiple=self._prompt_multiple)
        finally:
            self._generation.let_go()

    def _step(self, prompts: Sequence[Forward], stacked: Stacked, given: dict[str, Any]) -> Tensor:
        """Hidden states [rows, 1, v] of one token a row."""
        self._set_parts(self._parts_of_tokens(prompts, 1, stacked, Kept.CACHE))
        self._attend_in(self._own_attention)
        self._let_recompute(False)
        self._compiled.choose(None)
        with torch.no_grad(), prompts[0].autocast.entered():
            hidden: Tensor = self.backbone(**given).last_hidden_state
        return hidden

    def _record_step(self, step: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        """What does a step again, from the numbers that are at the same places by then."""
        began = time.perf_counter()
        replay = self._recorded.repeatable(step)
        self.counts.setup_seconds += time.perf_counter() - began
        return None if replay is None else partial(self._replay_step, replay, self._token_parts)

    def _replay_step(self, replay: Any, _parts: object) -> Tensor:
        """Holds the parts, too: what is replayed reads from where they lie."""
        replay.replay()
        self.counts.replayed += 1
        hidden: Tensor = replay.result
        return hidden

    def _continue(
        self, requests: Sequence[Forward], stacked: Stacked, kept: Kept, *, multiple: int = 1
    ) -> list[Graph]:
        """The next tokens of runs that generate, or their prompts.

        Rows are padded on the left, as generation does, to a multiple of so many tokens.
        """
        ordered = sorted(requests, key=lambda request: self._sorting(request, stacked))
        rows = rows_of(ordered)
        length = -(-max(request.length for request in ordered) // multiple) * multiple
        self._set_parts(self._parts_of_tokens(ordered, length, stacked, kept))
        self._attend_in(self._own_attention)
        self._let_recompute(False)
        self._compiled.choose(None)
        cache = self._generation.joined(ordered)
        whole = cache.get_seq_length() + length
        with torch.no_grad(), ordered[0].autocast.entered():
            hidden = self.backbone(
                input_ids=torch.cat([padded_left(r.input_ids, length, 0) for r in ordered]),
                attention_mask=mask_with_past(ordered, whole),
                position_ids=torch.cat([padded_left(positions_of(r), length, 0) for r in ordered]),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        self._generation.hand_out(ordered, rows)
        for request, where in zip(ordered, rows, strict=True):
            request.result = {"last_hidden_state": hidden[where, length - request.length :]}
        self.counts.generated += 1
        self.counts.generated_for += len(ordered)
        return []

    def _parts_of_tokens(
        self, requests: Sequence[Forward], length: int, stacked: Stacked, kept: Kept
    ) -> Mapping[str, Sequence[Part]]:
        """What the blocks add; for runs that generate the same from token to token."""
        key = (
            length,
            tuple((id(r.member), r.rows, r.uses_adapter, r.autocast) for r in requests),
            tuple((id(block), block.version) for block in stacked.blocks),
        )
        if self._token_parts is not None and self._token_parts[0] == key:
            return self._token_parts[1]
        parts = self._graph(requests, LeftPadded(requests, length), stacked, kept).parts
        is_plain = not any(request.kept for request in requests)
        self._token_parts = (key, parts) if is_plain and length == 1 else None
        return parts

    def let_go_of_tokens(self) -> None:
        """Free what runs that generated had in common."""
        self._generation.let_go()
        self._decoders.clear()
        self._token_parts = None

    def _forward_and_backward(
        self, requests: Sequence[Forward], stacked: Stacked, kept: Kept
    ) -> list[Graph]:
        """Once more, for runs whose own backwards are done already."""
        for graph in self.pass_together(requests, stacked, kept):
            self._backward(graph)
        return []

    def _backward(self, graph: Graph) -> None:
        self._set_parts(graph.parts)
        self._attend_in(PACKED if graph.requests[0].sizes is not None else self._own_attention)
        self._let_recompute(graph.kept is Kept.LAYER_INPUTS)
        graph.backward()

    def _sorting(self, request: Forward, stacked: Stacked) -> tuple[int, int]:
        return stacked.place[request.member] if request.uses_adapter else (len(stacked.blocks), 0)

    def _graph(
        self, requests: Sequence[Forward], laid: Tokens, stacked: Stacked, kept: Kept
    ) -> Graph:
        """Who adds what where."""
        graph = Graph(list(requests), kept)
        starts = [0, *accumulate(laid.tokens)]
        for number, block in enumerate(stacked.blocks):
            own = [
                (stacked.place[request.member][1], place)
                for place, request in enumerate(requests)
                if request.uses_adapter and stacked.place[request.member][0] == number
            ]
            if not own:
                continue
            tokens = [laid.tokens[place] for _, place in own]
            device, members = block.weights.device, [row for row, _ in own]
            is_whole = members == list(range(block.weights.shape[0]))
            index = None if is_whole else on_device([np.asarray(members)], device)[0]
            spread = Spread.of(tokens, device)
            is_all = len(own) == len(requests)
            start = None if is_all else starts[own[0][1]]
            autocast = requests[own[0][1]].autocast
            weights = block.leaves(autocast.compute_dtype(block.weights.dtype))
            graph.leaves.append((block, [leaf for pair in weights.values() for leaf in pair]))
            scales: dict[int, tuple[Tensor, Tensor]] = {}
            for path, (down, up) in weights.items():
                of_all = block.scale(path, down.dtype)
                if id(of_all) not in scales:
                    scale = _of(of_all, index)
                    scales[id(of_all)] = scale, scale.index_select(0, spread.members).unsqueeze(1)
                scale, factor = scales[id(of_all)]
                stays, made_up = _dropout(path, block, laid, requests, own)
                part = Part(
                    down=_of(down, index),
                    up=_of(up, index),
                    scale=scale,
                    factor=factor,
                    way=way_of(
                        tokens,
                        down.dtype,
                        (down.shape[2], *up.shape[1:]),
                        down.device,
                    ),
                    spread=spread,
                    kept=stays,
                    made_up=made_up,
                    dropped_in=block.input_dtype(path, autocast),
                    start=start,
                )
                graph.parts.setdefault(path, []).append(part)
        return graph

    def _set_parts(self, parts: Mapping[str, Sequence[Part]]) -> None:
        if not parts and not self._has_parts:
            return
        self._has_parts = bool(parts)
        for path, layer in self._layers.items():
            layer.parts = tuple(parts.get(path, ()))

    # ---- packing

    @property
    def why_no_decoder(self) -> str | None:
        """Why runs that write share no steps over keys and values that stay; None when they do."""
        if self._own_attention in ADDS_MASK:
            return None
        return (
            f"the base model's attention is {self._own_attention!r}; "
            "attn_implementation='sdpa' has a joint one"
        )

    @property
    def packs(self) -> bool:
        """Whether batches are packed where it is known how their tokens lie."""
        return not self.why_padded

    def _attention_way(self, request: Forward) -> AttentionWay:
        dtype = request.autocast.compute_dtype(self._tree.dtype)
        width = getattr(self._config, "head_dim", None)
        width = width or self._config.hidden_size // self._config.num_attention_heads
        return attention_way(request.input_ids.device, dtype, width)

    def _attend_in(self, implementation: str) -> None:
        """For the next pass."""
        self._config._attn_implementation = implementation  # noqa: SLF001 - where transformers keeps it

    # ---- memory

    def _tried(
        self,
        one_pass: Callable[[Sequence[Forward], Stacked, Kept], list[Graph]],
        part: Sequence[Forward],
        stacked: Stacked,
        kept: Kept,
        *,
        in_use: int = 0,
    ) -> list[Graph] | None:
        """What a pass gives.

        None when it has to be tried again, with less at once or with nothing compiled.
        """
        before = memory.allocated_bytes()
        try:
            made = one_pass(part, stacked, kept)
        except torch.OutOfMemoryError as error:
            self._ran_out(error, part, kept, in_use)
        except Exception as error:  # what torch's compiler raises has no class in common
            if not self._compiled.give_up(error):
                raise
        else:
            used = memory.allocated_bytes() - before
            if made and made[0].running is None and used > 0:
                self._limits.took(part, kept, used)
            if kept is Kept.LAYER_INPUTS and not self._recomputes:
                self._recomputes = True
                self.notes.append(
                    f"joint steps of {tokens_of(part):,} tokens do not fit with all their "
                    "activations: those of the layers are computed again in the backward pass"
                )
            return made
        return None

    def _free_bytes(self) -> float:
        device = next(self._tree.parameters()).device
        if device.type != "cuda":
            return math.inf
        return memory.free_bytes(device) - self._recorded.held_bytes

    def _ran_out(
        self, error: torch.OutOfMemoryError, part: Sequence[Forward], kept: Kept, in_use: int
    ) -> None:
        """Remember it, and free what the pass held."""
        self._limits.was_too_large(part, kept, in_use)
        self.counts.too_large += 1
        self._ran_out_with = str(error)
        error.__traceback__ = None
        self._recorded.ran_out()
        self.let_go_of_tokens()
        memory.collect()

    def _let_recompute(self, on: bool) -> None:
        """For the next pass: recomputing layers do not fill caches."""
        if on and not self._recomputing:
            self._tree.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
            self._recomputing = [
                m for m in self._tree.modules() if getattr(m, "gradient_checkpointing", False)
            ]
        for module in self._recomputing:
            module.gradient_checkpointing = on

    # ---- order

    def _watched_order(self) -> list[str]:
        """Let one token through and see which layers it meets."""
        order: list[str] = []
        hooks = [
            layer.register_forward_pre_hook(_noting(order, path))
            for path, layer in self._layers.items()
        ]
        self._set_parts({})
        device = next(self.backbone.parameters()).device
        self._let_recompute(False)
        with torch.no_grad():
            self.backbone(
                input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False
            )
        for hook in hooks:
            hook.remove()
        return order


def _noting(order: list[str], path: str) -> Callable[[nn.Module, Any], None]:
    def note(_module: nn.Module, _inputs: Any) -> None:
        order.append(path)

    return note


def _program(laid: JointPass, graph: Graph) -> Hashable:
    """What one compiled program serves; None where none would serve twice.

    Where each of several blocks begins is a constant of the program, so packed batches with several
    are not compiled.
    """
    if not isinstance(laid, PackedPass):
        return laid.shape
    parts = {part for of_layer in graph.parts.values() for part in map(_form, of_layer)}
    is_one = all(len(of_layer) == 1 for of_layer in graph.parts.values())
    starts = {part.start for of_layer in graph.parts.values() for part in of_layer}
    return (laid.shape, frozenset(parts)) if is_one and starts == {None} else None


def _form(part: Part) -> Hashable:
    return (str(part.way), part.kept is not None, torch.is_tensor(part.made_up))


def _of(members: Tensor, index: Tensor | None) -> Tensor:
    """Those of a block's members that take part; None for all."""
    return members if index is None else members.index_select(0, index)


def _dropout(
    path: str,
    block: AdapterBlock,
    laid: Tokens,
    requests: Sequence[Forward],
    own: Sequence[tuple[int, int]],
) -> tuple[Tensor | None, Tensor | float]:
    """What the dropout before one layer keeps of a block's tokens, and by how much it is raised.

    Args:
        path: The layer's.
        block: Of adapters.
        laid: How the requests are.
        requests: All of them.
        own: The block's: row of the block and place among the requests.
    """
    kept = laid.kept(path, [requests[place] for _, place in own])
    if kept is None:
        return None, 1.0
    shares = [block.share(path, row) if path in requests[place].kept else 1.0 for row, place in own]
    if len(set(shares)) == 1:
        return kept, shares[0]
    raised = numbers(shares, torch.float32, kept.device)
    counts = [laid.tokens[place] for _, place in own]
    return kept, torch.cat(
        [one.expand(n) for one, n in zip(raised.split(1), counts, strict=True)]
    ).unsqueeze(1)
