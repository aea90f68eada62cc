"""The published shapes: read by the engine's config reader, as large as their makers say."""

from __future__ import annotations

import pytest

from core.catalogue import models
from core.files.config.hf_config import from_hf

# Millions of parameters as the model cards and papers state them.
PUBLISHED = {
    "smollm2-135m": 134.5,
    "smollm2-360m": 361.8,
    "qwen2.5-0.5b": 494.0,
    "qwen3-0.6b": 596.0,
    "llama-3.2-1b": 1235.8,
    "llama-3.2-3b": 3212.7,
    "llama-3.1-8b": 8030.3,
    "mistral-7b": 7241.7,
    "tinyllama-1.1b": 1100.0,
    "llama-2-7b": 6738.4,
    "llama-2-13b": 13015.9,
    "llama-2-70b": 68976.6,
    "qwen2.5-7b": 7615.6,
}


def test_every_shape_has_a_published_size() -> None:
    assert set(models.shapes()) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_is_read_and_has_the_published_number_of_parameters(name: str) -> None:
    entry = models.shapes()[name]
    config = from_hf(entry["config"])
    assert config.family == entry["config"]["model_type"]
    millions = models.resolve(f"shape:{name}").params() / 1e6
    assert millions == pytest.approx(PUBLISHED[name], abs=0.1)


def test_every_shape_names_its_hub_repository() -> None:
    for name, entry in models.shapes().items():
        assert entry["source"].startswith("huggingface.co/"), name
        assert entry["title"]
