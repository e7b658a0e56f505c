"""How does an ordinary trainer take part in joint steps without knowing?

While a group advances, a few functions of the run's own objects are others: the forward of its
language model and of the backbone below, which wait for the joint result, the accelerator's
backward, which stops at that result, and what walks over all modules or weights without need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from rf_notebook.training.fused import writing
from rf_notebook.training.fused.adapters import Adapter, adapter_weights
from rf_notebook.training.fused.dropout import Dropouts, Layer
from rf_notebook.training.fused.head import COMPACT, head_of
from rf_notebook.training.fused.patches import patch, train_of, unwrap_of
from rf_notebook.training.fused.request import Autocast, Backward, Elsewhere, Forward, NextTokens
from rf_notebook.training.fused.sizes import Sizes, sizes_on_device
from rf_notebook.training.fused.updates import Updates, updates_of

if TYPE_CHECKING:
    from rf_notebook.training.aside import Aside
    from rf_notebook.training.fused.joint_model import JointModel
    from rf_notebook.training.parked import ParkedRun

#: Arguments of a forward that a joint one knows; others have to be None or False.
_KNOWN = ("input_ids", "attention_mask", "use_cache", "labels")
#: And those that a batch of packed rows brings along, which say what its position ids say.
_OF_PACKED_ROWS = (
    *("position_ids", "seq_idx", "cu_seq_lens_q", "cu_seq_lens_k"),
    *("max_length_q", "max_length_k"),
)


class Member:
    """One run of a group."""

    def __init__(
        self,
        run: ParkedRun,
        model: JointModel,
        *,
        pads_right: bool,
        generates: bool,
        tell: Callable[[str], None],
    ) -> None:
        """Nothing is changed before ``attach``.

        Args:
            run: Its trainer is built.
            model: Of the groups.
            pads_right: Whether its batches are padded on the right, so that no mask is needed.
            generates: Whether its steps let the model write.
            tell: Takes a note for the user.
        """
        self._model, self._generates, self._tell = model, generates, tell
        self.run: ParkedRun | Aside = run
        """What advances: the run, or what it does aside."""
        # Without a mask a GPU takes its fastest kernels. On a CPU it gains nothing, and with the
        # run's own mask the joint step takes the kernels that the run takes alone, and rounds as
        # they do.
        self._needs_no_mask = (
            pads_right and next(run.trainer.model.parameters()).device.type == "cuda"
        )
        trainer = run.trainer
        self._causal = trainer.model.get_base_model()
        self.backbone: nn.Module = getattr(self._causal, self._causal.base_model_prefix)
        self._adapter_name = trainer.model.active_adapter
        self._updates: Updates | None = updates_of(trainer)
        self.adapter = Adapter(
            adapter_weights(self.backbone, self._adapter_name),
            None if self._updates is None else self._updates.moments,
        )
        self._dropouts = {
            path: one.dropout for path, one in self.adapter.weights.items() if one.dropout > 0
        }
        self._drawing: tuple[Sequence[str], Dropouts] | None = None
        """For which order of layers, and what draws in it."""
        self._layer = next(iter(self.adapter.weights.values())).layer
        self._head = head_of(self._causal)
        self._changes_embeddings = trainer.args.neftune_noise_alpha is not None
        self._undo: list[Callable[[], None]] = []
        self._undo_updates: list[Callable[[], None]] = []
        self._disable_adapter = trainer.model.disable_adapter
        self._is_disabled = False
        """Whether the trainer asks for what the base says, below the adapter."""
        self._given: Tensor | None = None
        """Hidden states that the backbone is to hand on as if they were its own."""
        self.graphs: list[Any] = []
        """Joint forwards whose backward waits for this run."""
        self.joint_forwards = 0
        """Of this run, that were answered by joint ones since it was attached."""

    # ---- taking part

    def attach(self) -> None:
        """From now on the trainer's forwards and backwards are joint."""
        trainer = self.run.trainer
        self.joint_forwards = 0
        trainer.is_joint, trainer.filters_losses = True, trainer.args.logging_nan_inf_filter
        trainer.args.logging_nan_inf_filter = (
            False  # training_step does it without waiting for the device
        )
        generate = writing.generating(
            self._causal.generate, self._decode, self._why_alone, self._tell_why_alone
        )
        self._undo.append(self._leave)
        self._undo += [
            patch(trainer.model, "train", train_of(trainer.model)),
            patch(trainer.model, "disable_adapter", self._disabled),
            patch(
                trainer.accelerator, "unwrap_model", unwrap_of(trainer.accelerator, trainer.model)
            ),
            patch(self._causal, "forward", self._causal_forward(self._causal.forward)),
            patch(self.backbone, "forward", self._backbone_forward(self.backbone.forward)),
            patch(trainer.accelerator, "backward", self._backward(trainer.accelerator.backward)),
            patch(self._causal, "generate", generate),
            patch(trainer, "let_others", self._let_others),
        ]
        if not self._generates:
            # trl switches it off for a reference and on again, module by module. What is computed
            # again in the backward, the joint model decides.
            self._undo.append(patch(trainer.model, "is_gradient_checkpointing", False))

    def update_in(
        self,
        weights: Tensor,
        gradients: Tensor,
        moments: Mapping[str, Tensor],
        changed: Callable[[], None],
    ) -> None:
        """This run's weights are a row of a block.

        They are clipped and updated at once where the optimizer allows.

        Args:
            weights: The row, [p].
            gradients: The row, [p].
            moments: The rows, [p] each.
            changed: To be called after each update.
        """
        trainer = self.run.trainer

        def zero(*_args: Any, **_kwargs: Any) -> None:
            gradients.zero_()  # the parameters' gradients stay views of the row

        self._undo_updates = [patch(trainer.model, "zero_grad", zero)]
        if trainer.model_wrapped is not trainer.model:
            self._undo_updates.append(patch(trainer.model_wrapped, "zero_grad", zero))
        if self._updates is not None:
            self._undo_updates.append(self._updates.use(weights, gradients, moments, changed))
        else:
            step = trainer.optimizer.step

            @functools.wraps(step)
            def stepped(*args: Any, **kwargs: Any) -> Any:
                done = step(*args, **kwargs)
                changed()
                return done

            self._undo_updates.append(patch(trainer.optimizer, "step", stepped))

    def update_alone(self) -> None:
        """The trainer's own optimizer works on tensors of the run's own again."""
        for undo in reversed(self._undo_updates):
            undo()
        self._undo_updates.clear()

    def _leave(self) -> None:
        trainer = self.run.trainer
        trainer.args.logging_nan_inf_filter = trainer.filters_losses
        trainer.is_joint = trainer.filters_losses = False

    def detach(self) -> None:
        """Everything is the trainer's own again."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self.graphs = []

    # ---- the run's side

    def _causal_forward(self, own: Callable[..., Any]) -> Callable[..., Any]:
        self._own_causal = own

        @functools.wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not (kwargs.get("fused_lm_head") and self._head is not None):
                return self._by_itself(own, args, kwargs)
            asked = {name: value for name, value in kwargs.items() if name != "fused_lm_head"}
            request = self._request(args, asked, kwargs.get("labels"))
            if request is None:
                return self._by_itself(own, args, kwargs)
            request.is_compact = request.sizes is not None and kwargs["fused_lm_head"] == COMPACT
            self._wait_for(request)
            if request.is_left_alone:
                return self._alone(request, own, args, kwargs)
            self.joint_forwards += 1
            assert request.result_class is not None
            return request.result_class(**request.result)

        return forward

    def _backbone_forward(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._given is not None:
                return BaseModelOutputWithPast(last_hidden_state=self._given)
            request = self._request(args, kwargs, None)
            if request is None:
                return self._by_itself(own, args, kwargs)
            self._wait_for(request)
            if request.is_left_alone:
                return self._alone(request, own, args, kwargs)
            self.joint_forwards += 1
            if request.cache is not None:
                return BaseModelOutputWithPast(
                    last_hidden_state=request.result["last_hidden_state"],
                    past_key_values=request.cache,
                )
            return BaseModelOutputWithPast(last_hidden_state=request.result["last_hidden_state"])

        return forward

    def _why_alone(self) -> str | None:
        """Why what the run writes now shares no steps; None when it does, empty when it was told."""
        if self._model.broken is not None:
            return ""
        if self._causal.training and (self._dropouts or self._changes_embeddings):
            return "dropout or noise is active while it writes, drawn anew for each token"
        return self._model.why_no_decoder

    def _tell_why_alone(self, why: str) -> None:
        if why:
            self._tell(f"what the run writes does not share the joint steps of a token: {why}.")

    def _let_others(self) -> float:
        """Called by the run while it waits for what is no step: others continue meanwhile.

        Returns:
            Seconds that it may wait before it asks again.
        """
        request = Elsewhere()
        self._wait_for(request)
        return request.seconds

    def _decode(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **given: Any,
    ) -> Tensor:
        """See transformers' ``custom_generate``."""
        asked_with = {"input_ids": input_ids, **given, "logits_to_keep": None}
        writing.check_usual(generation_config, given, self._cache_of(asked_with))
        if (prompt := self._request((), asked_with, None)) is None or prompt.needs_grad:
            raise writing.Unusual("it asks its model for what joint steps do not know")
        left = writing.RowsLeft(len(input_ids), input_ids.device)
        asked = NextTokens(self, prompt, input_ids, writing.most_tokens(stopping_criteria), left)
        own = writing.OwnTokens(self._own_causal, given)

        def logits_of(tokens: Tensor) -> Tensor:
            if not asked.is_left_alone:
                asked.tokens = tokens[:, -1:]
                self._wait_for(asked)
            if asked.is_left_alone:
                with self._disable_adapter() if self._is_disabled else nullcontext():
                    return own.logits(tokens)
            self.joint_forwards += 1
            self._given = asked.hidden
            try:
                logits: Tensor = self._own_causal(input_ids=None).logits[:, -1]
            finally:
                self._given = None
            return logits

        return writing.decoded(
            input_ids, logits_of, logits_processor, stopping_criteria, generation_config, left
        )

    def _backward(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def backward(*args: Any, **kwargs: Any) -> None:
            own(*args, **kwargs)  # stops at the leaves
            if self.graphs:
                request = Backward()
                self.run.wait_for(request)
                if request.error is not None:
                    raise request.error

        return backward

    def _alone(
        self, request: Forward, own: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        if request.before is not None:
            self.run.set_streams(request.before)
        return self._by_itself(own, args, kwargs)

    def _by_itself(self, own: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        with self._disable_adapter() if self._is_disabled else nullcontext():
            return own(*args, **kwargs)

    @contextmanager
    def _disabled(self) -> Iterator[None]:
        """As peft's ``disable_adapter``, which visits all modules four times.

        Joint forwards only need to know; the run's own enter peft's.
        """
        before, self._is_disabled = self._is_disabled, True
        try:
            yield
        finally:
            self._is_disabled = before

    def _own_embeddings(self, input_ids: Tensor) -> Tensor:
        embeddings = cast("Any", self.backbone).get_input_embeddings()
        return cast("Tensor", embeddings(input_ids)).detach()

    def _wait_for(self, request: Forward | NextTokens | Elsewhere) -> None:
        self.run.wait_for(request)
        if request.error is not None:
            raise request.error

    def _request(
        self, args: Any, kwargs: Mapping[str, Any], labels: Tensor | None
    ) -> Forward | None:
        """What to ask for; None where this forward has to be the run's own.

        In evaluation nothing is drawn and nothing learned.
        """
        is_training = self._causal.training
        if self._model.broken is not None or (not is_training and torch.is_grad_enabled()):
            return None
        cache = self._cache_of(kwargs)
        sizes = None if cache is not None else self._sizes_of(kwargs)
        known = set(_KNOWN if cache is None else (*_KNOWN, "position_ids", "past_key_values"))
        if sizes is not None and sizes.is_packed:
            known.update(_OF_PACKED_ROWS)
        unknown = [
            n for n, v in kwargs.items() if n not in known and v is not None and v is not False
        ]
        input_ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        caches = bool(kwargs.get("use_cache"))
        is_known = (
            not args and not unknown and caches == (cache is not None) and input_ids is not None
        )
        is_disabled = self._is_disabled or self._layer.disable_adapters
        if not is_known or (
            not is_disabled and self._layer.active_adapters != [self._adapter_name]
        ):
            return None
        assert input_ids is not None
        uses_adapter = not is_disabled
        is_noisy = is_training and self._changes_embeddings
        drops = is_training and uses_adapter and bool(self._dropouts)
        before = self.run.streams() if is_noisy or drops else None
        return Forward(
            member=self,
            input_ids=input_ids,
            attention_mask=None if self._needs_no_mask and cache is None else mask,
            labels=labels,
            embeddings=self._own_embeddings(input_ids) if is_noisy else None,
            uses_adapter=uses_adapter,
            needs_grad=torch.is_grad_enabled() and uses_adapter,
            autocast=Autocast.now(input_ids.device.type),
            head=self._head,
            sizes=sizes,
            position_ids=kwargs.get("position_ids"),
            cache=cache,
            before=before,
            kept=self._draw_dropout(input_ids) if drops else {},
        )

    def _sizes_of(self, kwargs: Mapping[str, Any]) -> Sizes | None:
        """Where the tokens of a batch lie; None when it is not packed.

        Of a batch of a collator's they are known; of any other the device has to be asked.
        """
        input_ids = kwargs.get("input_ids")
        if input_ids is None or input_ids.dim() != 2 or not self._model.packs:
            return None
        known: Sizes | None = self.run.trainer.known_sizes(input_ids)
        if known is not None:
            return known
        return sizes_on_device(input_ids, kwargs.get("attention_mask"), kwargs.get("position_ids"))

    def _cache_of(self, kwargs: Mapping[str, Any]) -> Any | None:
        """The cache of a run that generates, if it is one that can be joined with others.

        Plain tensors that grow.
        """
        cache: Any = kwargs.get("past_key_values")
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        if type(cache) is not DynamicCache or any(
            type(layer) is not DynamicLayer for layer in cache.layers
        ):
            return None
        return cache if (mask is None or mask.dim() == 2) and positions is not None else None

    def _draw_dropout(self, input_ids: Tensor) -> Mapping[str, Tensor]:
        """The masks that this run would draw alone, from its own stream, in the same order."""
        order = self._model.order()
        if self._drawing is None or self._drawing[0] is not order:
            downs = {
                path: self.adapter.weights[path].down for path in order if path in self._dropouts
            }
            layers = [
                Layer(path, down.shape[1], down.dtype, self._dropouts[path])
                for path, down in downs.items()
            ]
            self._drawing = order, Dropouts(layers, input_ids.device)
        return self._drawing[1].draw(input_ids.shape)

    # ---- the group's side

    def score(self, hidden: Tensor, labels: Tensor) -> Any:
        """What this run's head says of hidden states [b, l, v] and labels [b, l].

        Equal for runs with equal heads.
        """
        self._given = hidden
        try:
            scored = self._own_causal(input_ids=None, labels=labels, fused_lm_head=True)
        finally:
            self._given = None
        return scored
