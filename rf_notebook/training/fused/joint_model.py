"""The base model as all members of a group see it: one forward and one backward for all of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rf_notebook.training import memory
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.fused.adapters import AdapterBlock
from rf_notebook.training.fused.compiled import CompiledLayers
from rf_notebook.training.fused.joint_cache import JointCache
from rf_notebook.training.fused.linear import Part, StackedLinear
from rf_notebook.training.fused.request import Forward


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
    backwards: int = 0
    tokens: int = 0
    """With padding."""
    generated: int = 0
    """Joint forwards of tokens or prompts of runs that generate."""
    generated_for: int = 0
    """Requests that were answered by those."""
    own_seconds: float = 0.0
    """Spent in the members' own code: data, losses, optimizers, trl's and transformers' Python."""
    splits: int = 0
    """Joint passes that were done again in two parts, for want of memory."""


@dataclass(slots=True, eq=False)
class Graph:
    """A joint forward whose backward is still to come."""

    requests: list[Forward]
    parts: dict[str, list[Part]]
    """By layer: what the blocks add to it."""
    leaves: list[tuple[AdapterBlock, list[Tensor]]] = field(default_factory=list)
    """The weights that the backward ends at, by block."""
    outputs: list[tuple[str, Tensor, list[tuple[Forward, slice]]]] = field(default_factory=list)
    """By name: a joint result, and which of its rows are whose."""

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
        self._recomputes = False
        self._recomputed: list[Any] = []
        """The modules that can compute their activations again in the backward."""
        self._too_many: float = math.inf
        """Tokens of several runs, with padding, that did not fit into memory together."""
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
        """The routed layers in the order in which a forward uses them: runs draw their dropout in this order."""
        return self._order

    def break_down(self, error: Exception) -> None:
        """Take the model out of use; its runs train in turns from now on."""
        self._log.warning("a joint step failed, its runs go on in turns: %r", error)
        self.broken = f"a joint step failed: {type(error).__name__}: {error}"[:300]

    def expect(self, forwards: int) -> None:
        """How many more joint forwards there will be at most, by which it is decided whether to compile."""
        self._compiled.forwards_left = forwards

    def forward(self, requests: Sequence[Forward], stacked: Stacked) -> list[Graph]:
        """Answer requests of one precision, all with or all without gradients.

        What does not fit into memory together is done in parts; a request that does not fit alone is left to its run.

        Returns:
            The graphs to go backward through; none without gradients.
        """
        graphs: list[Graph] = []
        waiting = self._fitting(requests)
        while waiting:
            part = waiting.pop(0)
            try:
                graph = self._continue(part, stacked) if part[0].cache is not None else self._forward(part, stacked)
            except torch.OutOfMemoryError as error:
                waiting[:0] = self._parts(part, error)
            except Exception as error:
                if not self._compiled.give_up(error):
                    raise
                waiting.insert(0, part)
            else:
                graphs += [graph] if graph is not None and graph.outputs else []
        return graphs

    def backward(self, graph: Graph, stacked: Stacked) -> None:
        """Go on from the leaves where the runs' own backwards ended, into the members' gradients."""
        try:
            self._backward(graph)
        except torch.OutOfMemoryError as error:
            graph.let_go()
            parts = self._parts(graph.requests, error)
        else:
            return
        for part in parts:
            for again in self.forward(part, stacked):
                self.backward(again, stacked)

    # ---- one pass

    def _forward(self, requests: Sequence[Forward], stacked: Stacked) -> Graph:
        first = requests[0]
        ordered = sorted(requests, key=lambda request: self._sorting(request, stacked))
        length = max(request.length for request in ordered)
        rows = _rows_of(ordered)
        graph = self._graph(ordered, rows, length, stacked)
        shape = (tuple(request.rows for request in ordered), length)
        self._set_parts(graph.parts)
        self._let_recompute(first.needs_grad)
        self._compiled.choose(shape, needs_grad=first.needs_grad, recomputes=self._recomputes)
        autocast = first.autocast
        with (
            torch.set_grad_enabled(first.needs_grad),
            torch.autocast(autocast.device_type, dtype=autocast.dtype, enabled=autocast.is_enabled),
        ):
            hidden = self.backbone(
                **self._inputs(ordered, length), attention_mask=_joint_mask(ordered, length), use_cache=False
            ).last_hidden_state
            outputs = list(self._outputs(ordered, rows, length, hidden))
        if not any(request.leaves for request in ordered):  # else the pass is done again, and all have their rows
            for name, joint, owners in outputs:
                for request, where in owners:
                    _give(request, name, joint, where)
        if first.needs_grad:
            graph.outputs = [one for one in outputs if one[1].requires_grad]
        self.counts.forwards += 1
        self.counts.requests += len(ordered)
        self.counts.tokens += _tokens(ordered)
        return graph

    def _continue(self, requests: Sequence[Forward], stacked: Stacked) -> Graph | None:
        """The next tokens of runs that generate, or their prompts. Rows are padded on the left, as generation does."""
        ordered = sorted(requests, key=lambda request: self._sorting(request, stacked))
        rows = _rows_of(ordered)
        length = max(request.length for request in ordered)
        self._set_parts(self._graph(ordered, rows, length, stacked, pads_left=True).parts)
        self._let_recompute(False)
        self._compiled.choose(None, needs_grad=False, recomputes=False)
        cache = self._generation.joined(ordered)
        whole = cache.get_seq_length() + length
        autocast = ordered[0].autocast
        with (
            torch.no_grad(),
            torch.autocast(autocast.device_type, dtype=autocast.dtype, enabled=autocast.is_enabled),
        ):
            hidden = self.backbone(
                input_ids=torch.cat([_padded_left(r.input_ids, length, 0) for r in ordered]),
                attention_mask=_mask_with_past(ordered, whole),
                position_ids=torch.cat([_padded_left(_positions(r), length, 0) for r in ordered]),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        self._generation.hand_out(ordered, rows)
        for request, where in zip(ordered, rows, strict=True):
            request.result = {"last_hidden_state": hidden[where, length - request.length :]}
        self.counts.generated += 1
        self.counts.generated_for += len(ordered)
        return None

    def _backward(self, graph: Graph) -> None:
        self._set_parts(graph.parts)
        self._let_recompute(True)
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
        self.counts.backwards += 1

    def _inputs(self, requests: Sequence[Forward], length: int) -> dict[str, Tensor]:
        if any(request.embeddings is not None for request in requests):
            embed = self.backbone.get_input_embeddings()  # type: ignore[operator]
            given = [r.embeddings if r.embeddings is not None else embed(r.input_ids) for r in requests]
            return {"inputs_embeds": torch.cat([_padded(one, length, 0) for one in given])}
        return {"input_ids": torch.cat([_padded(r.input_ids, length, 0) for r in requests])}

    def _outputs(
        self, requests: Sequence[Forward], rows: Sequence[slice], length: int, hidden: Tensor
    ) -> Iterator[tuple[str, Tensor, list[tuple[Forward, slice]]]]:
        """Log-probabilities for those that gave labels, from one head for all with equal heads; else hidden states."""
        heads: dict[Any, list[tuple[Forward, slice]]] = {}
        for request, where in zip(requests, rows, strict=True):
            heads.setdefault(None if request.labels is None else request.head, []).append((request, where))
        for head, owners in heads.items():
            if head is None:
                yield "last_hidden_state", hidden, owners
                continue
            is_all = len(owners) == len(requests)
            own = hidden if is_all else torch.cat([hidden[where] for _, where in owners])
            labels = torch.cat([_padded(r.labels, length, -100) for r, _ in owners if r.labels is not None])
            scored = owners[0][0].member.score(own, labels)
            places = list(zip((r for r, _ in owners), _rows_of([r for r, _ in owners]), strict=True))
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
        *,
        pads_left: bool = False,
    ) -> Graph:
        """Who adds what where."""
        graph = Graph(list(requests), {})
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
            for path, (down, up) in weights.items():
                scale = block.scale(path, down.dtype)
                part = Part(
                    start=own[0][1].start,
                    stop=own[-1][1].stop,
                    rows=tuple(request.rows for request, _ in own),
                    down=down if index is None else down[index],
                    up=up if index is None else up[index],
                    scale=scale if index is None else scale[index],
                    kept=_kept(path, [r for r, _ in own], length, pads_left) if _drops(path, own) else None,
                    made_up=_made_up(block.shares(path), own, members) if _drops(path, own) else None,
                )
                graph.parts.setdefault(path, []).append(part)
        return graph

    def _set_parts(self, parts: Mapping[str, Sequence[Part]]) -> None:
        for path, layer in self._layers.items():
            layer.parts = tuple(parts.get(path, ()))

    # ---- memory

    def _parts(self, requests: Sequence[Forward], error: torch.OutOfMemoryError) -> list[Sequence[Forward]]:
        """How to try again after running out of memory: activations computed again, then fewer runs at a time."""
        if len(requests) > 1:
            self._too_many = min(self._too_many, _tokens(requests))
        error.__traceback__ = None
        self._generation.let_go()
        memory.collect()
        if requests[0].needs_grad and not self._recomputes and self._can_recompute():
            self._recompute_from_now_on()
            self._too_many = math.inf
            return [requests]
        if len(requests) == 1:
            if requests[0].leaves:  # its own backward is done; there is no way back
                requests[0].error = torch.OutOfMemoryError(str(error))
            else:
                requests[0].is_left_alone = True  # with its own way of saving memory
            return []
        self.counts.splits += 1
        half = len(requests) // 2
        return [requests[:half], requests[half:]]

    def _fitting(self, requests: Sequence[Forward]) -> list[Sequence[Forward]]:
        """The requests in parts that may fit, as far as earlier passes have shown."""
        parts: list[list[Forward]] = [[]]
        for request in requests:
            if parts[-1] and _tokens([*parts[-1], request]) >= self._too_many:
                parts.append([])
            parts[-1].append(request)
        return list(parts)

    def _can_recompute(self) -> bool:
        return bool(getattr(self._tree, "supports_gradient_checkpointing", False))

    def _recompute_from_now_on(self) -> None:
        self._tree.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._recomputed = [m for m in self._tree.modules() if getattr(m, "gradient_checkpointing", False)]
        self._recomputes = True

    def _let_recompute(self, on: bool) -> None:
        """Only what has a backward: recomputing layers do not fill caches."""
        for module in self._recomputed:
            module.gradient_checkpointing = on

    # ---- order

    def _watched_order(self) -> list[str]:
        """Let one token through and see which layers it meets."""
        order: list[str] = []
        hooks = [layer.register_forward_pre_hook(_noting(order, path)) for path, layer in self._layers.items()]
        self._set_parts({})
        device = next(self.backbone.parameters()).device
        self._let_recompute(False)
        with torch.no_grad():
            self.backbone(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
        for hook in hooks:
            hook.remove()
        return order


def _noting(order: list[str], path: str) -> Callable[[nn.Module, Any], None]:
    def note(_module: nn.Module, _inputs: Any) -> None:
        order.append(path)

    return note


def _tokens(requests: Sequence[Forward]) -> int:
    return sum(request.rows for request in requests) * max(request.length for request in requests)


def _rows_of(requests: Sequence[Forward]) -> list[slice]:
    slices, done = [], 0
    for request in requests:
        slices.append(slice(done, done + request.rows))
        done += request.rows
    return slices


def _padded(tensor: Tensor, length: int, value: int) -> Tensor:
    """[b, l, ...] with ``length`` instead of l."""
    missing = length - tensor.shape[1]
    return tensor if not missing else nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing), value=value)


def _padded_left(tensor: Tensor, length: int, value: int) -> Tensor:
    """[b, l, ...] with ``length`` instead of l, the tokens at the end."""
    missing = length - tensor.shape[1]
    return tensor if not missing else nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (missing, 0), value=value)


def _positions(request: Forward) -> Tensor:
    assert request.position_ids is not None
    return request.position_ids.expand(request.rows, -1)


def _mask_with_past(requests: Sequence[Forward], whole: int) -> Tensor | None:
    """[rows, whole]; None when nothing is padded."""
    if all(r.attention_mask is None and r.past + r.length == whole for r in requests):
        return None
    masks = []
    for request in requests:
        mask = request.attention_mask
        if mask is None:
            mask = request.input_ids.new_ones(request.rows, request.past + request.length)
        masks.append(_padded_left(mask, whole, 0))
    return torch.cat(masks)


def _joint_mask(requests: Sequence[Forward], length: int) -> Tensor | None:
    if all(request.attention_mask is None for request in requests):
        return None
    masks = [r.attention_mask if r.attention_mask is not None else torch.ones_like(r.input_ids) for r in requests]
    return torch.cat([_padded(mask, length, 0) for mask in masks])


def _drops(path: str, own: Sequence[tuple[Forward, slice]]) -> bool:
    return any(path in request.kept for request, _ in own)


def _made_up(shares: Sequence[float], own: Sequence[tuple[Forward, slice]], members: Sequence[int]) -> Tensor:
    factors = [shares[member] for (request, _), member in zip(own, members, strict=True) for _ in range(request.rows)]
    return torch.tensor(factors, device=own[0][0].input_ids.device).view(-1, 1, 1)


def _kept(path: str, requests: Sequence[Forward], length: int, pads_left: bool) -> Tensor:
    like = next(request.kept[path] for request in requests if path in request.kept)
    parts = []
    for request in requests:
        kept = request.kept.get(path)
        if kept is None:
            kept = torch.ones(request.rows, request.length, like.shape[-1], dtype=torch.bool, device=like.device)
        parts.append((_padded_left if pads_left else _padded)(kept, length, 0))
    return torch.cat(parts)


def _give(request: Forward, name: str, joint: Tensor, where: slice) -> None:
    """Hand a run its rows, without the others' padding; where a gradient may come back, as a leaf."""
    length = request.length - (request.labels is not None)  # log-probabilities are of the next token
    rows = joint[where, :length].detach()
    if joint.requires_grad:
        rows = request.leaves[name] = rows.requires_grad_()
    request.result[name] = rows
