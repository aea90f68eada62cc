"""Owns refusing before the work what a format could not hold after it: by the architecture, and by
how the plan's techniques will keep each matrix (core.predict.effects).

What only the numbers tell stays for the writing: scales that fp16 does not hold, zeros that a
format has no place for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from core.artefacts import gguf
from core.artefacts.arrange import arrange, check_model, refusal, refuse
from core.artefacts.contents import refusal as unknown_model
from core.artefacts.kept import of_stored
from core.errors import Refused
from core.files import quantized
from core.files.architectures import LEAN as FAMILIES
from core.files.config.classifier import CLASSIFIERS
from core.files.config.decoder_config import DecoderConfig
from core.files.config.hf_config import from_hf
from core.files.formats import native
from core.files.formats.layout import Stack, stacks
from core.files.formats.scheme import Kept, Module
from core.files.gguf import folder as gguf_files
from core.files.storage import FileBytes
from core.model import DecoderShape
from core.plan import Plan
from core.predict.effects import effects
from core.techniques.effects import Effects


def foresee(plan: Plan, format: str, config: Mapping[str, Any]) -> None:
    """Refused, naming a matrix and its shape, when `format` cannot hold what the plan will make of
    the model of a checked config.json.
    """
    family = config["model_type"]
    if family not in (*FAMILIES, *CLASSIFIERS):
        raise Refused(unknown_model(config))
    if format == native.METHOD:
        return
    if format == gguf.METHOD:
        gguf.check_model(config)
    else:
        check_model(config, format)
    outcome = effects(plan)
    packed = quantized.method(config) or gguf_files.is_gguf(config)
    if packed and (outcome.stored is None or isinstance(outcome.stored, FileBytes)):
        # Kept as the source has it, which is known when it is loaded.
        return
    decoder = _decoder(from_hf(config), outcome, plan)
    if outcome.possible:
        _mixed(outcome, format, decoder)
    if outcome.unknown:
        return
    matrices = list(_held(decoder, outcome))
    if format == gguf.METHOD:
        for stack, kept in matrices:
            for module in stack.modules():
                reason = kept and _no_block(kept, module)
                if reason:
                    raise Refused(refusal(kept, stack, reason))
    else:
        arrange(matrices, format, tied=decoder.tied_embeddings)


def _decoder(config: DecoderConfig, outcome: Effects, plan: Plan) -> DecoderConfig:
    """As the plan will have pruned it."""
    shape = plan.case.model.shape
    if not outcome.sparsity or not isinstance(shape, DecoderShape):
        return config
    widths = (
        outcome.shape(replace(shape, intermediate=width)).intermediate
        for width in config.intermediate_sizes
    )
    return config.with_intermediate_sizes(tuple(widths))


def _held(decoder: DecoderConfig, outcome: Effects) -> Iterator[tuple[Stack, Kept | None]]:
    """A tied head that stays dense is no matrix of its own."""
    chosen = dict(outcome.mix)
    for stack in stacks(decoder):
        kept = of_stored(chosen.get(stack.name, outcome.stored), stack.columns)
        if kept is not None or stack.name != "head" or not decoder.tied_embeddings:
            yield stack, kept


def _no_block(kept: Kept, module: Module) -> str | None:
    """Why GGUF has no block for the matrix; torch is imported only when it is asked."""
    from core.files.gguf import blocks as gguf_blocks

    return gguf_blocks.refuse(kept, module)


def _mixed(outcome: Effects, format: str, decoder: DecoderConfig) -> None:
    """Refused when a width that a search may choose has no place in the format."""
    *fewer, most = (stored.bits for stored in outcome.possible)
    widths = ", ".join(map(str, fewer))
    choice = f"{outcome.unknown[-1]} chooses {widths} or {most} bit matrix by matrix"
    others = "; the format that holds them: trimtab"
    if format not in (gguf.METHOD, "compressed-tensors"):
        raise Refused(f"{choice}, and {format} holds one width for all{others}")
    stack = stacks(decoder)[0]
    for stored in outcome.possible:
        bits, size = stored.bits, stored.group_size
        kept = Kept(f"int{bits}-g{size}", "int", bits, size, "whole")
        for module in stack.modules():
            reason = (
                _no_block(kept, module) if format == gguf.METHOD else refuse(kept, module, format)
            )
            if reason is not None:
                raise Refused(f"{choice}: {reason}{others}")
