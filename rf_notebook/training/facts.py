"""What is this base model, and where does it train?

Facts by which another machine tells whether it has the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rf_notebook.core.values import Json, digest
from rf_notebook.training.settings import threads_of_each

#: Bytes of a tensor up to which all of it goes into the digest; of a larger one, as many in even
#: slices.
_WHOLE_BYTES = 256 * 1024
_SLICES = 64
#: What a tokenizer keeps of its last call.
_OF_THE_LAST_CALL = ("truncation", "padding")


def model_facts(model: nn.Module, tokenizer: Any) -> dict[str, Json]:
    """Class, revision, dtype, size and digests, as JSON.

    The digest of the weights covers every tensor's name, shape and type, the whole of small tensors
    and an even sample of large ones, so that it takes well below a second for a billion parameters.
    """
    config = getattr(model, "config", None)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "class": type(model).__name__,
        "name": str(getattr(config, "_name_or_path", "") or ""),
        "revision": getattr(config, "_commit_hash", None),
        "dtype": str(getattr(model, "dtype", "")).removeprefix("torch."),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": _weights_digest(tensors.items()),
        "tokenizer": _tokenizer_digest(tokenizer),
    }


def environment(*, use_cpu: bool = False, gpu: int = 0, processes: int = 1) -> dict[str, Json]:
    """Python, platform, device, and the settings of torch that figures depend on, as JSON.

    Args:
        use_cpu: Whether runs train on the CPU although there is a GPU.
        gpu: The visible GPU that is meant otherwise.
        processes: How many share torch's threads.
    """
    has_gpu = not use_cpu and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(gpu)
        if has_gpu
        else (platform.processor() or platform.machine()),
        "device_type": "cuda" if has_gpu else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": threads_of_each(processes),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


@torch.no_grad()
def _weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        sha.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        if tensor.device.type != "meta" and tensor.numel():
            sha.update(_sample(tensor.detach()).cpu().numpy().tobytes())
    return sha.hexdigest()


def _sample(tensor: Tensor) -> Tensor:
    """Bytes of a tensor."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    if flat.numel() <= _WHOLE_BYTES:
        return flat
    length = _WHOLE_BYTES // _SLICES
    starts = [(flat.numel() - length) * i // (_SLICES - 1) for i in range(_SLICES)]
    return torch.cat([flat[start : start + length] for start in starts])


def _tokenizer_digest(tokenizer: Any) -> str:
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        known: Json = {
            k: v for k, v in json.loads(backend.to_str()).items() if k not in _OF_THE_LAST_CALL
        }
    else:
        get_vocab = getattr(tokenizer, "get_vocab", dict)
        known = sorted(get_vocab().items())
    special = {
        name: str(value)
        for name, value in dict(getattr(tokenizer, "special_tokens_map", {})).items()
    }
    return digest(
        [type(tokenizer).__name__, known, special, getattr(tokenizer, "chat_template", None)]
    )
