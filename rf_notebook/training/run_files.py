"""What does a run's checkpoint hold, beyond what trl's own holds, so that continuing is exact?

A checkpoint of trl is written after a step; ours is taken while the trainer stands at the begin of
the next step, also between two logs. So three things are added: the random streams at this very
moment and at the begin of the pass, the sums that the next log will divide, and the method's own
counters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import recursively_apply
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from rf_notebook.training.device import gpus_of_runs
from rf_notebook.training.process_state import RandomState

if TYPE_CHECKING:
    from rf_notebook.training.methods.base import Method
    from rf_notebook.training.methods.trainer_like import TrainerLike
    from rf_notebook.training.parked import Gate

_FILE = "parked.pt"


def save_run(
    trainer: TrainerLike,
    gate: Gate,
    method: Method,
    streams: RandomState,
    folder: Path,
    *,
    copies: bool = False,
) -> list[Callable[[], None]]:
    """Write a parked or finished trainer, and its random streams, into a folder.

    The run's process state is installed.

    Args:
        trainer: The run's.
        gate: In which it stands.
        method: Of its config.
        streams: The run's.
        folder: Exists.
        copies: Whether the large tensors are copied to the host, so that the run may go on before
            they are written.

    Returns:
        What writes the large files: before the run goes on unless they were copied, and then in any
        thread.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    adapter = _adapter_weights(model)
    later = [_save_weights(trainer, model, adapter, folder, copies=copies)]
    # What transformers 5.23 does in ``Trainer._save_optimizer_and_scheduler`` on one device.
    state = trainer.optimizer.state_dict()
    if copies:
        state = _on_host(state)
    later.append(partial(torch.save, state, folder / OPTIMIZER_NAME))
    torch.save(trainer.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
    trainer._save_scaler(str(folder))  # noqa: SLF001 - transformers' Trainer keeps it so
    trainer.store_flos()
    trainer.state.save_to_json(str(folder / "trainer_state.json"))
    extra = {
        "random": streams.as_plain(),
        "epoch_random": None if gate.epoch_random is None else gate.epoch_random.as_plain(),
        "loss_since_log": float(trainer._tr_loss),  # noqa: SLF001 - transformers' Trainer keeps it so
        "loss_total": float(trainer._total_loss_scalar),  # noqa: SLF001 - transformers' Trainer keeps it so
        "last_logged_step": int(trainer._globalstep_last_logged),  # noqa: SLF001 - transformers' Trainer keeps it so
        "divergence": trainer.divergence.as_plain(),
        "method": method.extra_state(trainer),
        "beside_adapter": _beside_adapter(model, adapter),
    }
    torch.save(extra, folder / _FILE)
    return later


def prepare_to_continue(gate: Gate, method: Method, folder: Path) -> None:
    """Make a gate restore what ``save_run`` added, once its trainer has loaded the rest."""
    extra = torch.load(folder / _FILE, weights_only=True)
    epoch_random = extra["epoch_random"]
    gate.resume_random = (
        None if epoch_random is None else RandomState.from_plain(epoch_random),
        RandomState.from_plain(extra["random"]),
    )

    def restore(trainer: TrainerLike) -> None:
        trainer._tr_loss = torch.tensor(extra["loss_since_log"], device=trainer.args.device)  # noqa: SLF001 - transformers' Trainer keeps it so
        trainer._total_loss_scalar = extra["loss_total"]  # noqa: SLF001 - transformers' Trainer keeps it so
        trainer._globalstep_last_logged = extra["last_logged_step"]  # noqa: SLF001 - transformers' Trainer keeps it so
        # the final train_loss is the mean over the whole run
        trainer._initial_global_step = 0  # noqa: SLF001 - transformers' Trainer keeps it so
        method.restore_extra_state(trainer, extra["method"])
        if "divergence" in extra:  # checkpoints of version 0.1.0 have none
            trainer.divergence.restore(extra["divergence"], trainer.args.device)
        _put(extra.get("beside_adapter", {}), trainer.model)

    gate.on_ready = restore


def restore_beside_adapter(model: Any, folder: Path) -> None:
    """Give a model what its run trained and its adapter's files do not have."""
    _put(torch.load(folder / _FILE, weights_only=True).get("beside_adapter", {}), model)


@torch.no_grad()
def _put(weights: Mapping[str, torch.Tensor], model: Any) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in weights.items():
        parameters[name].copy_(tensor)


def _adapter_weights(model: Any) -> dict[str, torch.Tensor] | None:
    """What peft saves of a model's adapter; None when all weights are trained."""
    if getattr(model, "peft_config", None) is None:
        return None
    name = model.active_adapter
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, adapter_name=name, save_embedding_layers=False
    )
    return found


def _save_weights(
    trainer: TrainerLike,
    model: Any,
    adapter: dict[str, torch.Tensor] | None,
    folder: Path,
    *,
    copies: bool,
) -> Callable[[], None]:
    if adapter is None:
        trainer.save_model(str(folder), _internal_call=True)
        return _nothing
    # What save_pretrained writes, without its model card and its look-ups on the hub.
    apart = _on_host(adapter) if copies else _apart(adapter)
    config = model.peft_config[model.active_adapter]
    inference_mode, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = inference_mode
    return partial(save_file, apart, folder / "adapter_model.safetensors", {"format": "pt"})


def _beside_adapter(model: Any, adapter: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """What is trained and is not in an adapter's files, which are for using it.

    Of P-tuning they have the prompt that its encoder gives, and not the encoder.
    """
    if adapter is None:
        return {}
    places = {tensor.data_ptr() for tensor in adapter.values()}
    return {
        name: parameter.detach().cpu()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.data_ptr() not in places
    }


def _nothing() -> None:
    """All is written."""


def _on_host(of_tensors: Any) -> Any:
    """Nested containers with copies of their tensors in the host's memory.

    Tensors that fill one storage between them, as an adapter's do after joint steps, are copied at
    once.
    """
    filled: Counter[int] = Counter()
    copies: dict[int, torch.Tensor] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        filled[tensor.untyped_storage().data_ptr()] += tensor.nbytes
        return tensor

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if filled[place] != storage.nbytes() or not tensor.is_contiguous():
            return _host_copy(tensor)
        if place not in copies:
            whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage)
            copies[place] = _host_copy(whole)
        return copies[place].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    # Nothing is drawn and no type is left open, so what guards a run's own code is not needed.
    with torch.no_grad(), torch._C.DisableTorchFunction():  # noqa: SLF001 - it has no other name
        recursively_apply(count, of_tensors)
        made = recursively_apply(copied, of_tensors)
        for gpu in gpus_of_runs():
            torch.cuda.current_stream(gpu).synchronize()
        return made


def _host_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, there once the device's stream is done.

    Of a GPU's tensor in pinned memory, which torch keeps for the next one: it is copied at the
    speed of the bus, and no page has to be found for it.
    """
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return host.copy_(tensor, non_blocking=tensor.is_cuda)


def _apart(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights with tied ones, which safetensors refuses, written out each.

    Source: peft 0.21, ``PeftModel.save_pretrained``.
    """
    seen: set[int] = set()
    apart = {}
    for name, tensor in weights.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = (
            tensor.clone(memory_format=torch.contiguous_format)
            if place in seen
            else tensor.contiguous()
        )
        seen.add(place)
    return apart
