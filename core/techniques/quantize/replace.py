"""Replace the matrices of a lean decoder by another weight format; the float copy is let go."""

from __future__ import annotations

from core.deployment import Deployment
from core.engine.decoder import MATRICES, Decoder
from core.engine.linear import Linear
from core.errors import Refused


def replace_linears(deployment: Deployment, format_: str) -> None:
    """Round every matrix of the layers and the head into `format_`, one at a time, so that memory
    stays near the model.

    A tied head becomes a packed matrix of its own; the 16-bit embedding stays for the lookup of
    input tokens. Raises Refused for engines that are not the lean decoder.
    """
    engine = lean(deployment, f"weight format {format_}")
    before = engine.weight_bytes()
    for index, layer in enumerate(engine.layers):
        for name in MATRICES:
            linear: Linear = getattr(layer, name)
            setattr(layer, name, linear.to_format(format_))
        deployment.report((index + 1) / (len(engine.layers) + 1))
    engine.head = engine.head.to_format(format_)
    deployment.note(f"{format_}: weights went from {before:,} to {engine.weight_bytes():,} bytes")


def lean(deployment: Deployment, what: str) -> Decoder:
    """The deployment's engine as the lean decoder; Refused names what needed it."""
    if not isinstance(deployment.engine, Decoder):
        raise Refused(
            f"{what} needs a model of the Llama family (llama, mistral, qwen2, qwen3);"
            f" {deployment.case.model.id} is {deployment.case.model.family}"
        )
    return deployment.engine
