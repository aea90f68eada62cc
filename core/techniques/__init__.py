"""The one registry of techniques, written by hand. Importing it imports no torch."""

from __future__ import annotations

import re
import types
import typing
from typing import Any

from core.errors import BadInput
from core.plan import Technique, own_fields, parse_setting
from core.techniques.base import Base
from core.techniques.batch.static import StaticBatch
from core.techniques.cache.kv_cache import KvCache
from core.techniques.decode.speculative import Speculative
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.auto_mixed import AutoMixed
from core.techniques.quantize.awq import Awq
from core.techniques.quantize.binary import Binary
from core.techniques.quantize.cast import Cast
from core.techniques.quantize.fp4 import Fp4
from core.techniques.quantize.fp8 import Fp8
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.k_quant import KQuant
from core.techniques.quantize.llm_int8 import LlmInt8
from core.techniques.quantize.nf4 import NormalFloat4
from core.techniques.quantize.qat import Qat
from core.techniques.quantize.rtn import RoundToNearest
from core.techniques.quantize.ternary import Ternary
from core.techniques.quantize.w8a8 import W8A8
from core.techniques.quantize.weight_int import WeightInt4, WeightInt8
from core.techniques.recover.lora import Lora

TECHNIQUES: tuple[type[Base], ...] = (
    PruneMlpChannels,
    SoftTargets,
    WeightInt8,
    WeightInt4,
    RoundToNearest,
    Gptq,
    Awq,
    Qat,
    Cast,
    NormalFloat4,
    Fp8,
    Fp4,
    Binary,
    Ternary,
    KQuant,
    AutoMixed,
    W8A8,
    LlmInt8,
    Lora,
    KvCache,
    Speculative,
    StaticBatch,
)

BY_NAME = {technique.name: technique for technique in TECHNIQUES}
# Names for settings of another technique: that one's name.
ALIASES = {
    alias.name: parent.name
    for alias in TECHNIQUES
    for parent in alias.__bases__
    if parent in TECHNIQUES
}


def is_technique(value: Any) -> bool:
    """Whether `value` is an instance of a registered technique."""
    return type(value) in TECHNIQUES


def technique(name: str) -> type[Base]:
    """The technique called `name`; BadInput names the known ones."""
    if not isinstance(name, str) or name not in BY_NAME:
        raise BadInput(f"unknown technique {name!r}; known techniques: {', '.join(BY_NAME)}")
    return BY_NAME[name]


def setting_types(name: str) -> dict[str, Any]:
    """The types of a technique's settings by name."""
    kind = technique(name)
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in own_fields(kind)}


def build(name: str, settings: dict[str, Any]) -> Technique:
    """A technique with the given settings; BadInput names an unknown one or a value of the wrong
    type.
    """
    kind, known = technique(name), setting_types(name)
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise BadInput(
                f"technique {name} has no setting {key!r}; it has: {', '.join(known) or 'none'}"
            )
        hint = known[key]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if float in options and isinstance(value, int | float) and not isinstance(value, bool):
            # -0.0 + 0.0 is 0.0: the same setting has one spelling.
            values[key] = float(value) + 0.0
        elif not isinstance(value, options) or (isinstance(value, bool) and bool not in options):
            raise BadInput(f"technique {name}: {key}={value!r} is not of type {hint}")
        else:
            values[key] = value
    try:
        return typing.cast(Technique, kind(**values))
    except ValueError as error:
        raise BadInput(f"technique {name}: {error}") from None


def spell(technique: Technique) -> str:
    """`NAME[:key=value,...]` as parse reads it: what differs from the defaults."""
    changed = [
        f"{field.name}={value}"
        for field in own_fields(technique)
        if (value := getattr(technique, field.name)) != field.default
    ]
    return f"{technique.name}:{','.join(changed)}" if changed else technique.name


def parse(text: str) -> Technique:
    """Read `NAME[:key=value,...]` from the command line."""
    name, words = parse_setting(text)
    known = setting_types(name)
    values: dict[str, Any] = {}
    for key, word in words.items():
        hint = known.get(key, str)
        try:
            values[key] = word if hint is str else int(word) if hint is int else float(word)
        except ValueError:
            raise BadInput(f"--technique {text!r}: {key}={word!r} is not a number") from None
    return build(name, values)


def parse_stack(text: str) -> tuple[str, ...]:
    """The techniques of `NAME[:key=value,...]+NAME...`, each as `parse` reads it; a plus sign that
    no technique's name follows belongs to a setting.
    """
    names = "|".join(sorted((re.escape(kind.name) for kind in TECHNIQUES), key=len, reverse=True))
    return tuple(re.split(rf"\+(?=(?:{names})(?:[:+]|$))", text))
