"""How does a run take over another run's adapter, across ranks, scales, target modules and DoRA?

LoRA adds ``scale * B @ A`` to a frozen weight W; DoRA makes that ``m * (W + scale * B @ A) / norm(W
+ scale * B @ A)`` with one magnitude a row of W. Shape letters: O out features, I in features, R
rank; an embedding's A is (R, V) and its B (D, R), the update being (B @ A).T, so the same algebra
holds with O = D and I = V.

Same rank or larger: the child's first rows of A are the parent's, its first columns of B the
parent's times ``scale_parent / scale_child``, the other columns of B zero, so the function is the
parent's. Smaller: the best approximation of the parent's update in the Frobenius norm, its
truncated singular value decomposition, computed from the factors (Eckart and Young 1936). Where
only one of the two uses DoRA, see ``_to_dora`` and ``_from_dora``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rf_notebook.core.run import WarmStartReport
from rf_notebook.training.adapter_files import check_loaded, read_config
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.undisturbed import isolated_from_streams

_FILE = "adapter_layers.safetensors"
_REFERENCE_FILE = "reference_layers.safetensors"
#: The name of the frozen adapter that trl makes of the one that a run starts from.
REFERENCE_ADAPTER = "ref"


@dataclass(frozen=True, slots=True)
class LayerAdapter:
    """One module's adapter, apart from any model."""

    a_RI: Tensor
    b_OR: Tensor
    scale: float
    magnitude_O: Tensor | None = None
    """DoRA's magnitudes; None for plain LoRA."""
    bias_O: Tensor | None = None
    """Of lora_bias."""


@dataclass(frozen=True, slots=True)
class AdapterSnapshot:
    """A whole adapter: its LoRA layers, and the other trainable tensors by name."""

    layers: Mapping[str, LayerAdapter]
    others: Mapping[str, Tensor]

    def without(self, weights: Sequence[str]) -> AdapterSnapshot:
        """The adapter without the modules of some weights, by the names in a file."""

        def is_whole(name: str) -> bool:
            return not any(one == name or one.startswith(f"{name}.") for one in weights)

        return AdapterSnapshot(
            {name: layer for name, layer in self.layers.items() if is_whole(name)},
            {name: value for name, value in self.others.items() if is_whole(_in_a_file(name))},
        )


@dataclass(frozen=True, slots=True)
class Start:
    """What a run starts from."""

    adapter: AdapterSnapshot
    reference: AdapterSnapshot | None
    """What DPO and GRPO compare with; None for the base model."""


def load_start(folder: Path, base: Callable[[], Any]) -> Start:
    """Read what ``save_start`` or ``adopt_adapter`` wrote.

    Args:
        folder: Where it lies; already verified.
        base: Gives the base model, for an adapter in peft's own format.
    """
    if (folder / _FILE).exists():
        reference = _load(folder / _REFERENCE_FILE) if (folder / _REFERENCE_FILE).exists() else None
        return Start(_load(folder / _FILE), reference)
    with isolated_from_streams():
        config = read_config(folder)
        model = PeftModel.from_pretrained(
            tree_clone(base()), str(folder), is_trainable=True, config=config
        )
        adapter = take_snapshot(model).without(check_loaded(model, folder))
    return Start(adapter, adapter)


def _in_a_file(parameter: str) -> str:
    """A parameter's name without its adapter's, as peft writes it."""
    return parameter.replace(".modules_to_save.default", "").replace(".default", "")


def save_start(start: Start, folder: Path) -> None:
    """Write a start into a folder as safetensors."""
    _save(start.adapter, folder / _FILE)
    if start.reference is not None:
        _save(start.reference, folder / _REFERENCE_FILE)


def take_snapshot(model: Any) -> AdapterSnapshot:
    """Copy the adapter of a PEFT model."""
    layers = {name: _read(place) for name, place in _places(model)}
    lora = {id(p) for _, place in _places(model) for p in place.parameters()}
    others = {
        name: p.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad and id(p) not in lora
    }
    return AdapterSnapshot(layers, others)


def _save(snapshot: AdapterSnapshot, file: Path) -> None:
    tensors: dict[str, Tensor] = {}
    scales: dict[str, str] = {}
    for name, layer in snapshot.layers.items():
        scales[name] = repr(layer.scale)
        for part in ("a_RI", "b_OR", "magnitude_O", "bias_O"):
            tensor = getattr(layer, part)
            if tensor is not None:
                tensors[f"{name}:{part}"] = tensor.contiguous().cpu()
    tensors.update(
        {f"{name}:other": tensor.contiguous().cpu() for name, tensor in snapshot.others.items()}
    )
    save_file(tensors, file, metadata=scales)


def _load(path: Path) -> AdapterSnapshot:
    parts: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        scales = file.metadata() or {}
        for key in file.keys():  # noqa: SIM118 - not a mapping
            name, _, part = key.rpartition(":")
            if part == "other":
                others[name] = file.get_tensor(key)
            else:
                parts.setdefault(name, {})[part] = file.get_tensor(key)
    layers = {
        name: LayerAdapter(**tensors, scale=float(scales[name])) for name, tensors in parts.items()
    }
    return AdapterSnapshot(layers, others)


@torch.no_grad()
def warm_start(
    model: Any, parent: AdapterSnapshot, *, adapter: str | None = None
) -> WarmStartReport:
    """Give a PEFT model, freshly initialised, the parent's function as far as its shape allows.

    Args:
        model: The new run's model.
        parent: What it starts from.
        adapter: The name of the adapter that is written; the active one when omitted.
    """
    places = list(_places(model, adapter))
    copied, grown, fresh = [], [], []
    shrunk: dict[str, float] = {}
    taken: set[str] = set()
    for name, place in places:
        layer = parent.layers.get(name)
        if layer is None or not place.fits(layer):
            fresh.append(name)
            continue
        taken.add(name)
        lost = _write(place, layer)
        if lost is not None:
            shrunk[name] = lost
        elif place.rank == layer.a_RI.shape[0]:
            copied.append(name)
        else:
            grown.append(name)
    lora = {id(p) for _, place in places for p in place.parameters()}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in lora or adapter is not None:
            continue
        given = parent.others.get(name)
        if given is not None and given.shape == parameter.shape:
            parameter.copy_(given)
            copied.append(name)
            taken.add(name)
        else:
            fresh.append(name)
    dropped = [name for name in (*parent.layers, *parent.others) if name not in taken]
    return WarmStartReport(
        copied=tuple(copied),
        grown=tuple(grown),
        shrunk=shrunk,
        fresh=tuple(fresh),
        dropped=tuple(dropped),
    )


class _Place:
    """Where one module of a PEFT model keeps its adapter.

    The same for linear layers and embeddings.
    """

    def __init__(self, module: Any, adapter: str) -> None:
        self.module, self.adapter = module, adapter
        self.is_embedding = adapter in module.lora_embedding_A
        if self.is_embedding:
            self.a, self.b = module.lora_embedding_A[adapter], module.lora_embedding_B[adapter]
        else:
            self.a, self.b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        self.scale: float = module.scaling[adapter]
        magnitudes = module.lora_magnitude_vector
        self.magnitude = magnitudes[adapter].weight if adapter in magnitudes else None
        self.bias = None if self.is_embedding else module.lora_B[adapter].bias

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def parameters(self) -> list[Tensor]:
        return [p for p in (self.a, self.b, self.magnitude, self.bias) if p is not None]

    def fits(self, layer: LayerAdapter) -> bool:
        """Whether the parent's adapter belongs to a module of this shape.

        Convolutions only at the same rank.
        """
        same_rank = layer.a_RI.shape == self.a.shape and layer.b_OR.shape == self.b.shape
        matrices = self.a.dim() == 2 and layer.a_RI.dim() == 2
        same_outer = (
            layer.a_RI.shape[1:] == self.a.shape[1:] and layer.b_OR.shape[:1] == self.b.shape[:1]
        )
        return same_rank or (matrices and same_outer)

    def weight_OI(self) -> Tensor:
        """The frozen weight, in float64."""
        base = self.module.get_base_layer()
        weight = base.weight
        if hasattr(weight, "quant_state"):
            from bitsandbytes.functional import dequantize_4bit

            weight = dequantize_4bit(weight.data, weight.quant_state)
        weight = weight.detach().double()
        transposed = self.is_embedding or getattr(self.module, "fan_in_fan_out", False)
        return weight.T if transposed else weight


def _places(model: Any, adapter: str | None = None) -> Iterator[tuple[str, _Place]]:
    adapter = adapter or model.active_adapter
    for name, module in model.named_modules():
        if isinstance(module, AdaLoraLayer):
            continue  # its A and B are one of three factors, and whole parameters
        if isinstance(module, LoraLayer) and (
            adapter in module.lora_A or adapter in module.lora_embedding_A
        ):
            yield name, _Place(module, adapter)


def _read(place: _Place) -> LayerAdapter:
    def copy(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().clone()

    return LayerAdapter(
        a_RI=place.a.detach().clone(),
        b_OR=place.b.detach().clone(),
        scale=place.scale,
        magnitude_O=copy(place.magnitude),
        bias_O=copy(place.bias),
    )


def _write(place: _Place, parent: LayerAdapter) -> float | None:
    """Give a module the parent's function.

    Returns the share of the update that was lost, None when none was.
    """
    if parent.bias_O is not None and place.bias is not None:
        place.bias.copy_(parent.bias_O * (parent.scale / place.scale))
    if parent.magnitude_O is not None and place.magnitude is None:
        return _from_dora(place, parent)
    lost = _write_low_rank(place, parent)
    if place.magnitude is not None:
        if parent.magnitude_O is not None:
            place.magnitude.copy_(parent.magnitude_O)
        else:
            _to_dora(place, parent)
    return lost


def _write_low_rank(place: _Place, parent: LayerAdapter) -> float | None:
    device = place.a.device
    a_RI, b_OR = parent.a_RI.to(device), parent.b_OR.to(device)
    rank = a_RI.shape[0]
    if place.rank >= rank:
        place.a[:rank].copy_(a_RI)
        place.b.zero_()
        place.b[:, :rank].copy_(b_OR * (parent.scale / place.scale))
        return None
    q_b, r_b = torch.linalg.qr(b_OR.double())
    q_a, r_a = torch.linalg.qr(a_RI.double().T)
    u, singular, v = torch.linalg.svd(r_b @ r_a.T * parent.scale)
    return _write_factors(place, q_b @ u, singular, v @ q_a.T)


def _write_factors(place: _Place, u_OK: Tensor, singular_K: Tensor, v_KI: Tensor) -> float:
    """Set A and B to the leading singular triples, balanced.

    Returns the share of the norm that was cut.
    """
    rank = place.rank
    kept = min(rank, singular_K.shape[0])
    half = (singular_K[:kept] / place.scale).sqrt()
    place.b.zero_()
    place.b[:, :kept].copy_(u_OK[:, :kept] * half)
    place.a[:kept].copy_(half[:, None] * v_KI[:kept])
    whole = singular_K.square().sum().sqrt()
    cut = singular_K[kept:].square().sum().sqrt()
    return float(cut / whole) if whole > 0 else 0.0


def _to_dora(place: _Place, parent: LayerAdapter) -> None:
    """LoRA to DoRA keeps the function when the magnitudes are the row norms of the updated weight."""
    assert place.magnitude is not None
    device = place.a.device
    update_OI = parent.scale * (parent.b_OR.to(device).double() @ parent.a_RI.to(device).double())
    place.magnitude.copy_((place.weight_OI() + update_OI).norm(dim=1).view_as(place.magnitude))


def _from_dora(place: _Place, parent: LayerAdapter) -> float:
    """DoRA to LoRA: the best low-rank approximation of an update that has full rank."""
    assert parent.magnitude_O is not None
    device = place.a.device
    weight_OI = place.weight_OI()
    update_OI = parent.scale * (parent.b_OR.to(device).double() @ parent.a_RI.to(device).double())
    directed_OI = weight_OI + update_OI
    magnitude_O = parent.magnitude_O.to(device).double().flatten()
    whole_OI = (
        magnitude_O[:, None] * directed_OI / directed_OI.norm(dim=1, keepdim=True) - weight_OI
    )
    u, singular, v = torch.linalg.svd(whole_OI, full_matrices=False)
    return _write_factors(place, u, singular, v)
