"""Names of tensors -> traces of the tools that wrote them: wrappers, unmerged adapters, quantizers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from olmocr.tensors.header import TensorInfo, shown

# Wrappers used in training, which stay in the names when the wrapper is saved instead of the model:
# torch.compile, DistributedDataParallel, FullyShardedDataParallel, activation checkpointing, DeepSpeed.
_INSIDE = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|_ddp_module)\."
)
# Wrappers whose names are words that a model may have, too: only at the start of a name. The second is peft's.
_BEFORE = ("module.", "base_model.model.")

# peft keeps the layers that it changes under these, and what it trains besides them under the others.
_ADAPTER = re.compile(
    r"(?:\.|^)(?:lora_\w+|base_layer|original_module|modules_to_save|adapter_\w+|trainable_tokens_\w+|hada_\w+|lokr_\w+"
    r"|ia3_l|oft_\w+|boft_\w+|vera_\w+|prompt_encoder|prompt_embeddings)(?:\.|$)"
)

# Endings of the tensors that quantizers put in place of a weight or beside it.
_QUANTIZERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("bitsandbytes with 8 bits", re.compile(r"\.(?:SCB|weight_format)$")),
    ("bitsandbytes with 4 bits", re.compile(r"\.(?:absmax|quant_map|nested_absmax|nested_quant_map)$|\.quant_state\.")),
    ("GPTQ or AWQ", re.compile(r"\.(?:qweight|qzeros|g_idx)$")),
    ("FP8 with scales for blocks", re.compile(r"\.weight_scale_inv$")),
    ("compressed-tensors", re.compile(r"\.(?:weight_packed|weight_zero_point|weight_g_idx|weight_shape)$")),
    ("NVIDIA ModelOpt", re.compile(r"\.weight_scale_2$")),
    ("EETQ or Quanto", re.compile(r"\.(?:weight_scales|_data|_scale)$")),
)
# The published FP8 checkpoints have only these scales; whether they fit is checked elsewhere.
_PLAIN_FP8 = re.compile(r"\.(?:weight_scale|input_scale)$")


def unwrapped(tensors: Sequence[TensorInfo]) -> tuple[list[TensorInfo], list[str]]:
    """Return *tensors* by their names in the model itself, and the parts of names that were left out.

    A leading word is removed only if every name has it.
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
    """Return which quantizer wrote the tensors, with an example, or None for weights as they were trained.

    FP8 with one factor for each row, or one for all, is not reported, because it can be undone.
    """
    for kind, ending in _QUANTIZERS:
        names = [info.name for info in tensors if ending.search(info.name)]
        if names:
            return f"{kind}: it has {shown(names[0])}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    return None


def is_scaled(tensors: Sequence[TensorInfo]) -> bool:
    """Return whether weights have scales beside them, as FP8 weights do."""
    return any(_PLAIN_FP8.search(info.name) for info in tensors)
