"""Names of tensors -> what the tools that wrote them left there: wrappers, adapters that are not merged, quantizers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from olmocr.tensors.header import TensorInfo, shown

# What wraps a model while it is trained, and stays in the names where the wrapper is saved instead of the model:
# torch.compile, DistributedDataParallel, FullyShardedDataParallel, activation checkpointing, DeepSpeed.
_INSIDE = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|_ddp_module)\."
)
# Wrappers whose names are words that a model may have, too: only before all of a name. The second is peft's.
_BEFORE = ("module.", "base_model.model.")

# peft keeps the layers that it changes under these, and what it trains beside them under the others.
_ADAPTER = re.compile(
    r"(?:\.|^)(?:lora_\w+|base_layer|original_module|modules_to_save|adapter_\w+|trainable_tokens_\w+|hada_\w+|lokr_\w+"
    r"|ia3_l|oft_\w+|boft_\w+|vera_\w+|prompt_encoder|prompt_embeddings)(?:\.|$)"
)

# Endings of what quantizers put in place of a weight or beside it.
_QUANTIZERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("bitsandbytes with 8 bits", re.compile(r"\.(?:SCB|weight_format)$")),
    ("bitsandbytes with 4 bits", re.compile(r"\.(?:absmax|quant_map|nested_absmax|nested_quant_map)$|\.quant_state\.")),
    ("GPTQ or AWQ", re.compile(r"\.(?:qweight|qzeros|g_idx)$")),
    ("FP8 with scales for blocks", re.compile(r"\.weight_scale_inv$")),
    ("compressed-tensors", re.compile(r"\.(?:weight_packed|weight_zero_point|weight_g_idx|weight_shape)$")),
    ("NVIDIA ModelOpt", re.compile(r"\.weight_scale_2$")),
    ("EETQ or Quanto", re.compile(r"\.(?:weight_scales|_data|_scale)$")),
)
# The published FP8 checkpoints have no other scales than these; whether they fit is asked elsewhere.
_PLAIN_FP8 = re.compile(r"\.(?:weight_scale|input_scale)$")


def unwrapped(tensors: Sequence[TensorInfo]) -> tuple[list[TensorInfo], list[str]]:
    """Return *tensors* by the names that they have in the model itself, and the parts that were left out of them.

    A word before all names goes only where every name has it.
    """
    found = []
    plain = []
    for info in tensors:
        found += _INSIDE.findall(info.name)
        plain.append(replace(info, name=_INSIDE.sub("", info.name)))
    while before := next((each for each in _BEFORE if plain and all(t.name.startswith(each) for t in plain)), None):
        found.append(before)
        plain = [replace(info, name=info.name.removeprefix(before)) for info in plain]
    return plain, list(dict.fromkeys(found))


def adapter_parts(tensors: Sequence[TensorInfo]) -> list[str]:
    """Return the names of tensors that belong to an adapter beside the weights, or to layers that one changes."""
    return [info.name for info in tensors if _ADAPTER.search(info.name)]


def quantizer_of(tensors: Sequence[TensorInfo]) -> str | None:
    """Return which quantizer the tensors are from, and one of those that tell; None for weights as they were trained.

    FP8 that has a factor for each row, or one for all, is not named: it can be undone.
    """
    for kind, ending in _QUANTIZERS:
        names = [info.name for info in tensors if ending.search(info.name)]
        if names:
            return f"{kind}: it has {shown(names[0])}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    return None


def is_scaled(tensors: Sequence[TensorInfo]) -> bool:
    """Tell whether weights have scales beside them, as FP8 weights do."""
    return any(_PLAIN_FP8.search(info.name) for info in tensors)
