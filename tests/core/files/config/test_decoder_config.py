"""Reading config.json: what is honoured comes back, what is not is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers_models import VARIANTS, transformers_model

from core.errors import BadInput
from core.files.config.hf_config import from_hf

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_survives_being_written_and_read(variant: str) -> None:
    config = from_hf(transformers_model(variant).config.to_dict())
    assert from_hf(config.to_hf()) == config


@pytest.mark.parametrize("variant", ["llama", "llama-rope-llama3", "llama-rope-linear", "qwen3"])
def test_rotary_frequencies_equal_those_of_transformers(variant: str) -> None:
    model = transformers_model(variant)
    got = torch.tensor(from_hf(model.config.to_dict()).inverse_frequencies())
    torch.testing.assert_close(got, model.model.rotary_emb.inv_freq, rtol=1e-6, atol=0)


def test_the_older_spelling_of_rope_is_read() -> None:
    scaling = {
        "type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    old = from_hf(LLAMA | {"rope_theta": 5e5, "rope_scaling": scaling})
    new = from_hf(LLAMA | {"rope_parameters": scaling | {"rope_theta": 5e5}})
    assert old == new
    assert old.rope_theta == 5e5
    assert old.rope_scaling is not None
    assert old.rope_scaling.factor == 8


def test_defaults_follow_the_family() -> None:
    llama = from_hf(LLAMA)
    assert (llama.num_kv_heads, llama.head_dim, llama.qkv_bias, llama.qk_norm) == (
        4,
        8,
        False,
        False,
    )
    assert llama.sliding_window is None
    assert from_hf(LLAMA | {"model_type": "mistral"}).sliding_window == 4096
    assert from_hf(LLAMA | {"model_type": "qwen2"}).qkv_bias
    qwen3 = from_hf(LLAMA | {"model_type": "qwen3"})
    assert (qwen3.head_dim, qwen3.qk_norm, qwen3.qkv_bias) == (128, True, False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "32"}, "hidden_size must be an integer"),
        ({"hidden_size": True}, "hidden_size must be an integer"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers must be an integer from 1 to 1024"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads"),
        ({"head_dim": 7}, "head_dim .* must be even"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps must be a number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn'"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor must be from 1"),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"pretraining_tp": 2}, "pretraining_tp 2"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"eos_token_id": "end"}, "eos_token_id"),
        ({"intermediate_sizes": [64]}, "intermediate_sizes must list"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        from_hf(LLAMA | change)
    assert str(caught.value).startswith("config.json")


def test_a_mix_of_sliding_and_full_attention_is_refused() -> None:
    mixed = LLAMA | {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
    }
    with pytest.raises(BadInput, match="layer_types mixes"):
        from_hf(mixed)
    assert from_hf(mixed | {"max_window_layers": 0}).sliding_window == 8
    assert from_hf(mixed | {"max_window_layers": 2}).sliding_window is None
