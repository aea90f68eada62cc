"""Owns what an engine holds, in words of files: its config.json, its matrices, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import Refused
from core.files.config.hf_config import from_hf
from core.files.formats.layout import EMBEDDING, Stack, stacks
from core.files.formats.parts import Part, part
from core.files.lean_layer import FINAL_NORM
from core.files.special_ids import ADDS_START
from kernels.dtypes import BY_NAME, FLOATS

if TYPE_CHECKING:
    from torch import Tensor

    from core.engine.decoder import Decoder
    from kernels.weight import KernelWeight

# What transformers 4 wrote for rope_parameters.
OLD_ROPE = ("rope_scaling", "rope_theta")
DROPPED = (
    "quantization_config",
    "compression_config",
    "torch_dtype",
    "trimtab",
    ".gguf",
    ADDS_START,
    *OLD_ROPE,
)


@dataclass(frozen=True)
class Contents:
    """An engine taken apart. `config` is its config.json without a word on quantization, `dtype`
    that of the engine; `weights` has every matrix, a tied head left out; `plain` is the rest.
    """

    config: dict[str, Any]
    dtype: str
    weights: tuple[tuple[Stack, KernelWeight], ...]
    plain: tuple[Part, ...]

    def quantized(self) -> list[tuple[Stack, KernelWeight]]:
        """The matrices that are not plain floats."""
        return [(stack, weight) for stack, weight in self.weights if weight.format not in FLOATS]

    def formats(self) -> dict[str, int]:
        """Number of matrices by format."""
        counts: dict[str, int] = {}
        for _, weight in self.weights:
            counts[weight.format] = counts.get(weight.format, 0) + 1
        return counts


def contents(engine: Any, source: Mapping[str, Any]) -> Contents:
    """Take a lean decoder or a classifier apart; `source` is the config.json that it came with.

    Raises Refused for an engine that no folder of ours holds.
    """
    from core.engine.classifier import DigitsCNN, DigitsMLP

    if engine.lean is not None:
        return _of_decoder(engine.lean, source)
    if isinstance(engine, DigitsMLP | DigitsCNN):
        return _of_classifier(engine)
    raise Refused(refusal(source))


def refusal(source: Mapping[str, Any]) -> str:
    """Why no folder of ours holds the model of a config.json."""
    return (
        "apply writes models of the Llama family (llama, mistral, qwen2, qwen3) and the digit"
        f" classifiers, not a {source.get('model_type')}, which runs through transformers"
    )


def dense_parts(stack: Stack, weight: KernelWeight) -> list[Part]:
    """A dense matrix under its Hugging Face names."""
    parts, row = [], 0
    whole: Tensor = weight.tensors()[0]
    for name, rows in stack.parts:
        parts.append(part(f"{name}.weight", whole[row : row + rows]))
        if weight.bias is not None:
            parts.append(part(f"{name}.bias", weight.bias[row : row + rows]))
        row += rows
    return parts


def _of_decoder(decoder: Decoder, source: Mapping[str, Any]) -> Contents:
    from core.engine.linear import DENSE

    head = decoder.head.kernel_weight.tensors()[0]
    tied = head.data_ptr() == decoder.embedding.data_ptr()
    config = {key: value for key, value in source.items() if key not in DROPPED}
    config |= decoder.config.to_hf()
    config["tie_word_embeddings"] = tied
    # Where text ends may have been said by generation_config.json, which not every format has.
    stops = list(decoder.special_ids.stops)
    config["eos_token_id"] = stops[0] if len(stops) == 1 else stops or None
    if config["bos_token_id"] is None:
        config["bos_token_id"] = decoder.special_ids.start
    if len(set(decoder.config.intermediate_sizes)) == 1:
        config.pop("intermediate_sizes", None)
    dtype = next(name for name, kind in DENSE.items() if kind is decoder.dtype)
    config |= {"dtype": BY_NAME[dtype].torch, "trimtab": {"dtype": dtype}}
    again = from_hf(config)
    if again.with_intermediate_sizes(decoder.config.intermediate_sizes) != again:
        raise Refused("the config.json of this model cannot say how wide its MLPs are")
    matrices = {name: linear.kernel_weight for name, linear in decoder.linears()}
    weights = tuple(
        (stack, matrices[stack.name])
        for stack in stacks(decoder.config)
        if stack.name != "head" or not tied
    )
    plain = [part(EMBEDDING, decoder.embedding), part(FINAL_NORM.tensor, decoder.final_norm)]
    plain += [part(name, norm) for name, norm in decoder.norms()]
    return Contents(config, dtype, weights, tuple(plain))


def _of_classifier(model: Any) -> Contents:
    from core.engine.linear import DENSE
    from core.engine.modules import KernelLinear

    weights = []
    for name, module in model.named_modules():
        if isinstance(module, KernelLinear):
            weight = module.weight_of_kernel
            weights.append((Stack(name, ((name, weight.n),), weight.k, bias=True), weight))
    plain = [part(name, tensor) for name, tensor in model.state_dict().items()]
    kinds = {weight.dtype for _, weight in weights} | {entry.make().dtype for entry in plain}
    dtype = next(name for name, kind in DENSE.items() if kind in kinds)
    config = model.config() | {"trimtab": {"dtype": dtype}}
    return Contents(config, dtype, tuple(weights), tuple(plain))
