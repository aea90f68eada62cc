"""One seed and one thread for every test, and the folder of helpers on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    # Models this small gain nothing from threads, and waiting for them is slow on a busy machine.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(1234)
    yield
    torch.set_num_threads(before)
