"""Fixtures over tiny_llama.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.decoder import Decoder
from core.engine.load.load import load_folder

sys.path.insert(0, str(Path(__file__).parent))

from tiny_llama import replace_all, rounded, write, write_source


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def quantized(source: Path) -> Callable[..., Decoder]:
    """The decoder of the source with every matrix quantized."""

    def make(*given: Any, **named: Any) -> Decoder:
        engine: Decoder = load_folder(source)[0]
        replace_all(engine, rounded(*given, **named))
        return engine

    return make


@pytest.fixture
def saved(tmp_path: Path, quantized: Callable[..., Decoder]) -> Callable[..., Path]:
    """The folder of such a decoder in a format."""

    def make(format: str, *given: Any, **named: Any) -> Path:
        folder = tmp_path / format
        write(quantized(*given, **named), folder, format)
        return folder

    return make
