"""Every number of every family that loads, against the model that transformers builds of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.catalogue import models
from core.engine.transformers_engine import TransformersEngine
from core.errors import BadInput
from core.files.architectures import FAMILIES, LEAN, OTHERS
from core.files.config.shape import decoder_shape
from core.model import DecoderShape, Projection, attended

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "vocab_size": 97}
PLAIN = {"hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 5,
         "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 64}  # fmt: skip
GPT = {"n_embd": 48, "n_layer": 5, "n_head": 4, "n_positions": 64}
HEADS = PLAIN | {"head_dim": 20}
BLOOM = {"hidden_size": 48, "n_layer": 5, "n_head": 4}
NEO = {"hidden_size": 48, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 64,
       "attention_types": [[["global", "local"], 2]], "window_size": 16}  # fmt: skip
FALCON = {"hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 4}
OPT = FALCON | {"ffn_dim": 88, "max_position_embeddings": 64, "word_embed_proj_dim": 48}
EXPERTS = HEADS | {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 40}
# Family, what is common, and what each case changes.
CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("bloom", BLOOM, [{}, {"tie_word_embeddings": False}]),
    ("cohere", PLAIN, [{}, {"use_qk_norm": True}, {"attention_bias": True}]),
    ("falcon", FALCON, [
        {}, {"bias": True}, {"multi_query": False}, {"parallel_attn": False},
        {"parallel_attn": False, "bias": True, "alibi": True, "multi_query": False},
        {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 88},
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        {"num_ln_in_parallel_attn": 2}, {"tie_word_embeddings": False},
    ]),
    ("gemma", HEADS, [{}, {"attention_bias": True}, {"tie_word_embeddings": False}]),
    ("gemma2", HEADS, [{}, {"sliding_window": 16}, {"attention_bias": True}]),
    ("gemma3_text", HEADS, [{"sliding_window": 16}, {"sliding_window_pattern": 2}, {
        "sliding_window": 8, "layer_types": ["full_attention", *["sliding_attention"] * 4]}]),
    ("glm", HEADS, [{}, {"attention_bias": False}, {"tie_word_embeddings": True}]),
    ("gpt2", GPT, [{}, {"n_inner": 80}, {"tie_word_embeddings": False}]),
    ("gpt_bigcode", GPT, [{}, {"multi_query": False}, {"n_inner": 80}]),
    ("gpt_neo", NEO, [{}, {"intermediate_size": 80}, {"tie_word_embeddings": False}]),
    ("gpt_neox", PLAIN, [{}, {"attention_bias": False}, {"use_parallel_residual": False},
                         {"tie_word_embeddings": True}]),
    ("gptj", GPT | {"rotary_dim": 4}, [{}, {"n_inner": 80}, {"tie_word_embeddings": True}]),
    ("granite", PLAIN, [{}, {"attention_bias": True}, {"mlp_bias": True}]),
    ("llama", HEADS, [{}, {"attention_bias": True, "mlp_bias": True}]),
    ("mistral", HEADS, [{"sliding_window": 16}, {"sliding_window": None}, {}]),
    ("mixtral", HEADS | {"num_local_experts": 6}, [
        {}, {"num_experts_per_tok": 3}, {"sliding_window": 16}, {"tie_word_embeddings": True}]),
    ("olmo", PLAIN, [{}, {"attention_bias": True}]),
    ("olmo2", PLAIN, [{}, {"attention_bias": True}]),
    ("opt", OPT, [{}, {"word_embed_proj_dim": 16}, {"do_layer_norm_before": False},
                  {"enable_bias": False}, {"layer_norm_elementwise_affine": False},
                  {"tie_word_embeddings": False, "word_embed_proj_dim": 16}]),
    ("phi", PLAIN, [{}, {"qk_layernorm": True}, {"tie_word_embeddings": True}]),
    ("phi3", PLAIN, [{}, {"sliding_window": 16}]),
    ("qwen2", HEADS, [{}, {"use_sliding_window": True, "max_window_layers": 0}]),
    ("qwen2_moe", SHARED, [
        {}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [0, 3]}, {"qkv_bias": False},
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 4}]),
    ("qwen3", HEADS, [{}, {"attention_bias": True}]),
    ("qwen3_moe", EXPERTS, [
        {}, {"decoder_sparse_step": 3}, {"mlp_only_layers": [1]}, {"attention_bias": True},
        {"use_sliding_window": True, "sliding_window": 16}]),
    ("smollm3", PLAIN, [{}, {"attention_bias": True, "mlp_bias": True},
                        {"use_sliding_window": True, "sliding_window": 16}]),
    ("stablelm", PLAIN | {"partial_rotary_factor": 0.5}, [
        {}, {"use_qkv_bias": True}, {"qk_layernorm": True},
                         {"use_parallel_residual": True}]),
    ("starcoder2", PLAIN, [{}, {"use_bias": False}, {"sliding_window": 16}]),
]  # fmt: skip
ALL = {family: [base | IDS | change for change in changes] for family, base, changes in CASES}
# One of each, and every one that slides.
RUN = [
    (family, given)
    for family, cases in ALL.items()
    if family not in LEAN
    for given in cases
    if given is cases[0] or given.get("sliding_window")
]


def built(family: str, given: dict[str, Any], device: str = "meta") -> tuple[Any, dict[str, Any]]:
    """transformers' model on a device, and the config.json that it would save."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **given)).eval()
    return model, model.config.to_dict()


def test_every_family_that_loads_is_described_and_tried() -> None:
    assert list(FAMILIES) == [*LEAN, *OTHERS]
    assert {family for family, _, _ in CASES} == {*OTHERS, *LEAN}


@pytest.mark.parametrize("family", ALL)
def test_weights_and_matrices_are_those_of_transformers(family: str) -> None:
    for given in ALL[family]:
        _compare(family, given)


def _compare(family: str, given: dict[str, Any]) -> None:
    model, saved = built(family, given)
    held = sum(weight.numel() for weight in model.parameters())
    for config in (saved, {"model_type": family, **given}):
        shape = decoder_shape(config)
        assert shape.params() == held, given
        assert shape.tied == (model.get_output_embeddings().weight is
                              model.get_input_embeddings().weight)  # fmt: skip
        if family in LEAN:
            continue
        wanted = sorted(
            (*sorted(weight.shape[-2:]), weight.shape[0] if weight.ndim == 3 else 1)
            for name, weight in model.named_parameters()
            if weight.ndim > 1 and not any(one in name for one in ("embed", "wte", "wpe", "norm"))
        )
        if shape.tied:
            wanted = sorted([*wanted, (*sorted((shape.embedding or 48, 97)), 1)])
        assert wanted == sorted(
            (*sorted((one.rows, one.columns)), one.count) for one in shape.projections()
        )


@pytest.mark.parametrize(("family", "given"), RUN)
def test_a_cache_holds_what_transformers_keeps(family: str, given: dict[str, Any]) -> None:
    model, saved = built(family, given, "cpu")
    engine, shape = TransformersEngine(model), decoder_shape(saved)
    cache = engine.new_cache(1, 60)
    for tokens in (1, 20, 60):
        engine.forward(torch.zeros(1, tokens - cache.length, dtype=torch.long), cache)
        kept = shape.kept_tokens(tokens) * shape.kv_values_per_token()
        assert cache.nbytes / 4 == pytest.approx(kept, rel=1e-12)


@pytest.mark.parametrize(("family", "given"), RUN)
def test_a_prompts_flops_are_those_that_transformers_multiplies(
    family: str, given: dict[str, Any]
) -> None:
    """Matrices only: of attention the counter sees the whole square, which is taken out."""
    from torch.utils.flop_counter import FlopCounterMode

    model, saved = built(family, given, "cpu")
    model.set_attn_implementation("eager")
    if "moe" in family or family == "mixtral":
        model.set_experts_implementation("eager")
    shape, tokens = decoder_shape(saved), 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(tokens)[None], use_cache=False, logits_to_keep=1)
    square = shape.attention_flops(tokens * tokens)
    matrices = shape.prompt_flops(tokens) - shape.attention_flops(
        sum(len(one.indices) * attended(tokens, one.window) for one in shape.layer_kinds())
        / shape.layers
    )
    counted = counter.get_total_flops() - square
    # Positions are turned by small products, which are no weights.
    assert matrices <= counted <= matrices * 1.02


def test_mixtral_8x7b_has_its_published_sizes() -> None:
    """46.7e9 weights of which a token uses 12.9e9 (Jiang et al. 2024, Mixtral of Experts)."""
    shape = decoder_shape(
        {"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
         "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 32768}
    )  # fmt: skip
    assert round(shape.params() / 1e9, 1) == 46.7
    assert round(shape.active_params() / 1e9, 1) == 12.9
    assert shape.kv_values_per_token() == 2 * 32 * 8 * 128


def test_the_experts_that_a_batch_reads_are_those_that_dice_choose() -> None:
    one = Projection("experts", 4, 4, count=8, used=2)
    random = torch.Generator().manual_seed(0)
    for tokens in (1, 2, 5, 40):
        draws = torch.rand(4000, tokens, 8, generator=random).topk(2, dim=2).indices
        hit = torch.zeros(4000, 8).scatter_(1, draws.flatten(1), 1.0).sum(1).mean()
        assert one.read(tokens) == pytest.approx(float(hit), rel=0.01)
    assert one.read(1) == 2
    assert Projection("plain", 4, 4).read(3) == 1


@pytest.mark.parametrize(("tokens", "window"), [(7, 0), (7, 3), (3, 7), (7, 1), (1, 1)])
def test_pairs_that_attend_are_counted_one_by_one(tokens: int, window: int) -> None:
    counted = sum(j <= i and (not window or i - j < window)
                  for i in range(tokens) for j in range(tokens))  # fmt: skip
    assert attended(tokens, window) == counted


def test_uneven_mlps_are_counted_layer_by_layer() -> None:
    config = {"model_type": "llama", "intermediate_size": 88} | PLAIN | {"vocab_size": 97}
    even, uneven = (
        decoder_shape(config),
        decoder_shape(config | {"intermediate_sizes": [88, 64, 64, 88, 32]}),
    )
    assert isinstance(uneven, DecoderShape)
    assert even.params() - uneven.params() == 3 * 48 * (5 * 88 - (88 + 64 + 64 + 88 + 32))


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
@pytest.mark.parametrize(
    "change",
    [{"num_experts": None, "num_local_experts": None}, {"num_experts": "many"},
     {"num_experts": 4, "num_local_experts": 5}, {"decoder_sparse_step": [2]},
     {"moe_intermediate_size": None, "intermediate_size": None}],
)  # fmt: skip
def test_hostile_mixtures_get_a_sentence(family: str, change: dict[str, Any]) -> None:
    config = {"model_type": family} | SHARED | IDS | change
    config = {key: value for key, value in config.items() if value is not None}
    if family == "mixtral" and change == {"decoder_sparse_step": [2]}:
        decoder_shape(config)
        return
    with pytest.raises(BadInput, match=r"^config\.json: "):
        decoder_shape(config)


def test_the_shapes_of_the_catalogue_open() -> None:
    for name in models.shapes():
        assert (
            models.resolve(f"shape:{name}").active_params()
            == models.resolve(f"shape:{name}").params()
        )
