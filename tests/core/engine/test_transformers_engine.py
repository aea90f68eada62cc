"""Families that transformers runs for us: the installed version is called as it wants to be."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from core.engine.transformers_engine import CACHE_NAMES, TransformersEngine, cache_name
from core.errors import BadInput
from core.files.architectures import OTHERS as FAMILIES

# One spelling or another of a tiny model's sizes; a family ignores what it does not know.
TINY: dict[str, Any] = {
    "vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
    "hidden_size": 32, "n_embd": 32, "n_embed": 32, "d_model": 32, "word_embed_proj_dim": 32,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48,
    "ffn_dim": 48, "max_position_embeddings": 64, "n_positions": 64, "rotary_dim": 4,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 64},
}
REMOVED_FIELDS = {"falcon": ("head_dim", "rotary_dim", "n_embed")}


def tiny(family: str) -> Any:
    """A random float32 model of `family`, as transformers makes it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = TINY | SPECIAL.get(family, {})
    for name in REMOVED_FIELDS.get(family, ()):
        fields.pop(name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields))
    return model.to(torch.float32).eval()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What transformers logs, which it does not hand on by itself."""
    from transformers.utils import logging as theirs

    caplog.set_level(logging.WARNING)
    theirs.enable_propagation()
    yield caplog
    theirs.disable_propagation()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_in_pieces_equals_one_pass_without_a_word(
    family: str, said: pytest.LogCaptureFixture
) -> None:
    model = tiny(family)
    ids = torch.randint(3, 61, (2, 13), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        whole = model(ids, use_cache=False).logits.float()
    engine = TransformersEngine(model)
    assert cache_name(type(model)) in inspect.signature(type(model).forward).parameters
    said.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache = engine.new_cache(2, 16)
        parts = [engine.forward(part, cache) for part in ids.split([5, 1, 3, 4], dim=1)]
        alone = engine.forward(ids)
        last = engine.forward(ids, last_only=True)
    assert cache.length == cache.inner.get_seq_length() == 13
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(alone, whole, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(last, whole[:, -1:], atol=2e-5, rtol=1e-4)
    assert [record.getMessage() for record in said.records] == []


class _Old:
    def forward(self, input_ids: Any, past_key_values: Any = None, **others: Any) -> None: ...


class _Between:
    """Takes both names for a while."""

    def forward(self, ids: Any, past_key_values: Any = None, cache: Any = None) -> None: ...


class _Swallows:
    def forward(self, input_ids: Any, **others: Any) -> None: ...


def test_the_name_is_that_of_the_installed_version() -> None:
    assert cache_name(_Old) == "past_key_values"
    assert cache_name(_Between) == CACHE_NAMES[0] == "cache"


def test_a_class_that_would_swallow_the_cache_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^_Swallows: .* no cache named cache or past_key_values"):
        cache_name(_Swallows)
