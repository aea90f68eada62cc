"""What several tests of techniques share: tiny decoders, and a deployment around one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from core.model import DecoderShape, Model
from core.plan import Case
from core.target import Target
from core.techniques.deployment import Deployment
from core.workload import Workload

# As a bundled model it learns from the bundled text.
MODEL = Model("tiny", "llama", "bundled", "r1", DecoderShape(64, 2, 4, 2, 16, 96, 131, 512))
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
CASE = Case(MODEL, TARGET, Workload("chat", "Chat", "text", 32, 8))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny decoders run faster on one thread than on threads that wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def case() -> Case:
    return CASE


@pytest.fixture
def tiny() -> Callable[..., Any]:
    """Random decoders of odd sizes: `tiny(dtype="fp32", seed=1, **fields of the config)`."""
    from core.engine.load.load import random_engine
    from core.files.config.decoder_config import DecoderConfig

    def make(dtype: str = "fp32", seed: int = 1, **fields: Any) -> Any:
        settings: dict[str, Any] = {
            "family": "llama",
            "vocab_size": 131,
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 16,
            "intermediate_sizes": (96, 96),
            "max_positions": 512,
            "tied_embeddings": True,
            **fields,
        }
        return random_engine(DecoderConfig(**settings), dtype, seed)

    return make


def as_engine(engine: Any) -> Any:
    """`engine`; a bare torch module also answers as an engine from here on."""
    from torch import nn

    from core.engine.held import HeldByModule

    if isinstance(engine, nn.Module) and not isinstance(engine, HeldByModule):
        kind = type(engine)
        itself = {"module": property(lambda module: module)}
        engine.__class__ = type(kind.__name__, (HeldByModule, kind), itself)
    return engine


@pytest.fixture
def deploy() -> Callable[..., tuple[Deployment, list[str]]]:
    """A deployment around an engine, and the list that its notes go to."""

    def make(engine: Any, case: Case = CASE, **fields: Any) -> tuple[Deployment, list[str]]:
        notes: list[str] = []
        engine = as_engine(engine)
        found = Deployment(case, engine, lambda: engine, note=notes.append, **fields)
        return found, notes

    return make
