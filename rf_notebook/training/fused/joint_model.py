"""The base model as all members of a group see it: one forward and one backward for all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rf_notebook.training import memory
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.fused.compiled import CompiledLayers
from rf_notebook.training.fused.joint_cache import JointCache
from rf_notebook.training.fused.layout import (
    dropout_of,
    mask_of,
    mask_with_past,
    padded,
    padded_left,
    positions_of,
    rows_of,
    tokens_of,
)
from rf_notebook.training.fused.linear import Part, StackedLinear
from rf_notebook.training.fused.memory_limits import Kept, MemoryLimits
from rf_notebook.training.fused.request import Forward

if TYPE_CHECKING:
    from rf_notebook.training.fused.adapters import AdapterBlock


@dataclass(slots=True)
class Stacked:
    """Blocks of adapters, and where each member's lies."""

    blocks: list[AdapterBlock]
    place: dict[Any, tuple[int, int]]
    """By member: block and row in it."""


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
    too_large: int = 0
    """Joint passes that ran out of memory and were done again in other ways."""


@dataclass(slots=True, eq=False)
class Graph:
    """A joint forward whose backward is still to come."""

    requests: list[Forward]
    kept: Kept
    parts: dict[str, list[Part]] = field(default_factory=dict)
    """By layer: what the blocks add to it."""
    leaves: list[tuple[AdapterBlock, list[Tensor]]] = field(default_factory=list)
    """The weights that the backward ends at, by block."""
    outputs: list[tuple[str, Tensor, list[tuple[Forward, slice]]]] = field(default_factory=list)
    """By name: a joint result, and which of its rows are whose. Empty when it was let go."""

    @property
    def tokens(self) -> int:
        """By which its memory is measured."""
        return tokens_of(self.requests) if self.outputs else 0

    def let_go(self) -> None:
        """Free what the backward would have needed."""
        self.outputs.clear()


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
        self._layers: dict[str, StackedLinear] = {}
        self._order: list[str] = []
        self._generation = JointCache()
        self._recomputing: list[Any] = []
        """The modules that can compute their activations again in the backward; found when it is
        first needed."""
        can_recompute = bool(getattr(self._tree, "supports_gradient_checkpointing", False))
        device = next(self._tree.parameters()).device
        self._limits = MemoryLimits(
            "cuda" if device.type == "cuda" else "cpu", can_recompute=can_recompute
        )
        self._ran_out_with = ""
        """What torch said when it last ran out of memory."""
        self._compiled = CompiledLayers(self._tree, self.backbone, log)
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
        """The most joint forwards that may follow, which decides whether compiling pays."""
        self._compiled.forwards_left = forwards

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
        ordered = sorted(requests, key=lambda request: self._sorting(request, stacked))
        length = max(request.length for request in ordered)
        rows = rows_of(ordered)
        graph = self._graph(ordered, rows, length, stacked, kept)
        shape = (tuple(request.rows for request in ordered), length)
        self._set_parts(graph.parts)
        self._let_recompute(kept is Kept.LAYER_INPUTS)
        self._compiled.choose(shape, keeps_activations=kept is Kept.ACTIVATIONS)
        with torch.set_grad_enabled(first.needs_grad), first.autocast.entered():
            hidden = self.backbone(
                **self._inputs(ordered, length),
                attention_mask=mask_of(ordered, length),
                use_cache=False,
            ).last_hidden_state
            outputs = list(self._outputs(ordered, rows, length, hidden))
        if not any(
            request.leaves for request in ordered
        ):  # else the pass is done again, and all have their rows
            for name, joint, owners in outputs:
                for request, where in owners:
                    _give(request, name, joint, where)
        self.counts.forwards += 1
        self.counts.requests += len(ordered)
        graph.outputs = [one for one in outputs if one[1].requires_grad]
        return [graph] if graph.outputs else []

    def _continue(self, requests: Sequence[Forward], stacked: Stacked, kept: Kept) -> list[Graph]:
        """The next tokens of runs that generate, or their prompts.

        Rows are padded on the left, as generation does.
        """
        ordered = sorted(requests, key=lambda request: self._sorting(request, stacked))
        rows = rows_of(ordered)
        length = max(request.length for request in ordered)
        self._set_parts(self._graph(ordered, rows, length, stacked, kept, pads_left=True).parts)
        self._let_recompute(False)
        self._compiled.choose(None, keeps_activations=False)
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

    def _forward_and_backward(
        self, requests: Sequence[Forward], stacked: Stacked, kept: Kept
    ) -> list[Graph]:
        """Once more, for runs whose own backwards are done already."""
        for graph in self.pass_together(requests, stacked, kept):
            self._backward(graph)
        return []

    def _backward(self, graph: Graph) -> None:
        self._set_parts(graph.parts)
        self._let_recompute(graph.kept is Kept.LAYER_INPUTS)
        tensors, gradients = [], []
        for name, joint, owners in graph.outputs:
            given = [(request.leaves[name].grad, where) for request, where in owners]
            if all(gradient is None for gradient, _ in given):
                continue
            whole = torch.zeros_like(joint)
            for gradient, where in given:
                if gradient is not None:
                    whole[where, : gradient.shape[1]] = gradient
            tensors.append(joint)
            gradients.append(whole)
        if tensors:
            leaves = [leaf for _, of_block in graph.leaves for leaf in of_block]
            found = iter(torch.autograd.grad(tensors, leaves, gradients, allow_unused=True))
            for block, of_block in graph.leaves:
                block.add_gradients([next(found) for _ in of_block])
        graph.let_go()

    def _inputs(self, requests: Sequence[Forward], length: int) -> dict[str, Tensor]:
        if any(request.embeddings is not None for request in requests):
            embed = self.backbone.get_input_embeddings()  # type: ignore[operator]
            given = [
                r.embeddings if r.embeddings is not None else embed(r.input_ids) for r in requests
            ]
            return {"inputs_embeds": torch.cat([padded(one, length, 0) for one in given])}
        return {"input_ids": torch.cat([padded(r.input_ids, length, 0) for r in requests])}

    def _outputs(
        self, requests: Sequence[Forward], rows: Sequence[slice], length: int, hidden: Tensor
    ) -> Iterator[tuple[str, Tensor, list[tuple[Forward, slice]]]]:
        """Log-probabilities for those that gave labels, from one head for all with equal heads.

        Else hidden states.
        """
        heads: dict[Any, list[tuple[Forward, slice]]] = {}
        for request, where in zip(requests, rows, strict=True):
            heads.setdefault(None if request.labels is None else request.head, []).append(
                (request, where)
            )
        for head, owners in heads.items():
            if head is None:
                yield "last_hidden_state", hidden, owners
                continue
            is_all = len(owners) == len(requests)
            own = hidden if is_all else torch.cat([hidden[where] for _, where in owners])
            labels = torch.cat(
                [padded(r.labels, length, -100) for r, _ in owners if r.labels is not None]
            )
            scored = owners[0][0].member.score(own, labels)
            places = list(zip((r for r, _ in owners), rows_of([r for r, _ in owners]), strict=True))
            for request, _ in owners:
                request.result_class = type(scored)
            for name, value in scored.items():
                if torch.is_tensor(value) and value.dim() == 2:
                    yield name, value, places

    def _sorting(self, request: Forward, stacked: Stacked) -> tuple[int, int]:
        return stacked.place[request.member] if request.uses_adapter else (len(stacked.blocks), 0)

    def _graph(
        self,
        requests: Sequence[Forward],
        rows: Sequence[slice],
        length: int,
        stacked: Stacked,
        kept: Kept,
        *,
        pads_left: bool = False,
    ) -> Graph:
        """Who adds what where."""
        graph = Graph(list(requests), kept)
        adapted = [(r, where) for r, where in zip(requests, rows, strict=True) if r.uses_adapter]
        for number, block in enumerate(stacked.blocks):
            own = [(r, where) for r, where in adapted if stacked.place[r.member][0] == number]
            if not own:
                continue
            members = [stacked.place[request.member][1] for request, _ in own]
            weights = block.leaves(own[0][0].autocast.compute_dtype(block.weights.dtype))
            graph.leaves.append((block, [leaf for pair in weights.values() for leaf in pair]))
            is_whole = members == list(range(block.weights.shape[0]))
            index = None if is_whole else torch.tensor(members, device=block.weights.device)
            given = [request for request, _ in own]
            for path, (down, up) in weights.items():
                scale = block.scale(path, down.dtype)
                shares = block.shares(path)
                stays, made_up = dropout_of(
                    path, given, [shares[i] for i in members], length, pads_left=pads_left
                )
                part = Part(
                    start=own[0][1].start,
                    stop=own[-1][1].stop,
                    rows=tuple(request.rows for request, _ in own),
                    down=down if index is None else down[index],
                    up=up if index is None else up[index],
                    scale=scale if index is None else scale[index],
                    kept=stays,
                    made_up=made_up,
                    dropped_in=block.input_dtype(path, given[0].autocast),
                )
                graph.parts.setdefault(path, []).append(part)
        return graph

    def _set_parts(self, parts: Mapping[str, Sequence[Part]]) -> None:
        for path, layer in self._layers.items():
            layer.parts = tuple(parts.get(path, ()))

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
        try:
            return one_pass(part, stacked, kept)
        except torch.OutOfMemoryError as error:
            self._ran_out(error, part, kept, in_use)
        except Exception as error:  # what torch's compiler raises has no class in common
            if not self._compiled.give_up(error):
                raise
        return None

    def _ran_out(
        self, error: torch.OutOfMemoryError, part: Sequence[Forward], kept: Kept, in_use: int
    ) -> None:
        """Remember it, and free what the pass held."""
        self._limits.was_too_large(part, kept, in_use)
        self.counts.too_large += 1
        self._ran_out_with = str(error)
        error.__traceback__ = None
        self._generation.let_go()
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


def _give(request: Forward, name: str, joint: Tensor, where: slice) -> None:
    """Hand a run its rows, without the others' padding.

    Where a gradient may come back, as a leaf.
    """
    length = request.length - (
        request.labels is not None
    )  # log-probabilities are of the next token
    rows = joint[where, :length].detach()
    if joint.requires_grad:
        rows = request.leaves[name] = rows.requires_grad_()
    request.result[name] = rows
