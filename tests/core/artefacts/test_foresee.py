"""What a format cannot hold is said before the work, by name; what is written loads."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from test_apply import plan
from tiny_llama import IDS, write_source

from core.artefacts import apply as applying
from core.engine.load.load import load_folder
from core.errors import Refused

FORMATS = ("trimtab", "compressed-tensors", "gptq", "awq", "gguf")
# Those that need no text, so that a case takes a fraction of a second.
DATA_FREE = (
    "weight-int4:group_size=32", "weight-int4:group_size=64", "weight-int8", "w8a8", "nf4", "fp4",
    "fp8", "fp8:format=e5m2", "fp8:activations=8", "ternary", "binary:head_bits=8",
    "cast:dtype=fp32",
    "k-quant", "k-quant:mix=q2_k", "k-quant:mix=q5_k_m", "prune-mlp:sparsity=0.5",
    *(f"rtn:bits={bits},group_size={size},symmetric={same}"
      for bits in (2, 3, 4, 5, 8) for size in (0, 32, 64) for same in (0, 1)),
)  # fmt: skip
LEARNING = ("gptq", "awq", "qat:steps=1", "gptq:bits=3", "auto-mixed", "llm-int8", "lora:steps=1")


class Watch:
    """Whether the work began."""

    begun = False


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found, original = Watch(), applying._applied

    def applied(*given: Any) -> Any:
        found.begun = True
        return original(*given)

    monkeypatch.setattr(applying, "_applied", applied)
    return found


def odd_shape(rng: random.Random) -> dict[str, Any]:
    """A small decoder whose sizes divide by little."""
    heads = rng.choice((1, 2, 3, 4))
    kv = rng.choice([one for one in (1, 2, 3, 4) if heads % one == 0])
    return {
        "hidden_size": rng.choice((32, 36, 48, 64, 96, 100, 128, 256)),
        "intermediate_size": rng.choice((40, 64, 96, 100, 160, 256)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": rng.choice((2, 4, 6, 8, 16, 32)),
        "vocab_size": rng.choice((95, 96, 104, 128)),
        "tie_word_embeddings": rng.random() < 0.5,
        "model_type": rng.choice(("llama", "llama", "mistral", "qwen2", "qwen3")),
    }


@pytest.mark.parametrize("seed", range(24))
def test_an_odd_shape_is_refused_before_the_work_or_its_folder_loads(
    seed: int, tmp_path: Path, watch: Watch
) -> None:
    rng = random.Random(seed)
    source = write_source(tmp_path / "source", **odd_shape(rng))
    for format in FORMATS:
        technique = rng.choice(DATA_FREE)
        out, watch.begun = tmp_path / format, False
        said = ""
        try:
            applying.apply(plan(str(source), technique), out, format)
        except Refused as error:
            said = str(error)
        if said:
            # Rows of no type of llama.cpp's are found by the technique itself.
            late = watch.begun and "no matrix of this model has rows" not in said
            assert (late, out.exists()) == (False, False), (technique, format, said)
        else:
            engine, _ = load_folder(out)
            assert bool(engine.forward(IDS).isfinite().all()), (technique, format)


@pytest.mark.parametrize("format", FORMATS[1:])
@pytest.mark.parametrize("technique", LEARNING)
def test_what_calibrates_or_trains_is_refused_before_it_begins(
    technique: str, format: str, tmp_path: Path, watch: Watch
) -> None:
    source = write_source(tmp_path / "source", num_attention_heads=16, num_key_value_heads=1,
                          hidden_size=100, intermediate_size=100, head_dim=4)  # fmt: skip
    with pytest.raises(
        Refused, match=r"100|auto-mixed chooses|does not know|holds|no int8"
    ) as error:
        applying.apply(plan(str(source), technique), tmp_path / "out", format)
    assert not watch.begun
    assert "trimtab" in str(error.value)


@pytest.mark.parametrize(
    ("technique", "format", "changes", "reason"),
    [
        ("awq:bits=4", "awq", {"num_attention_heads": 16, "num_key_value_heads": 1},
         r"awq packs 8 rows at a time, and model\.layers\.0\.self_attn\.k_proj has 4 rows of 64; "
         "formats that hold it: trimtab, compressed-tensors$"),
        ("gptq:bits=4", "gptq", {"intermediate_size": 100},
         r"along rows and columns, and model\.layers\.0\.mlp\.gate_proj has 100 rows of 64; "),
        ("gptq:bits=4,group_size=64", "compressed-tensors", {"intermediate_size": 96},
         r"whole groups, and 64 do not divide the 96 columns of model\.layers\.0\.mlp\.down_proj"),
        ("gptq:bits=4", "gguf", {"intermediate_size": 100},
         r"gguf holds blocks of 32 columns, and model\.layers\.0\.mlp\.down_proj has 100"),
        ("gptq:bits=3", "gguf", {}, "gguf holds 4, 5 and 8-bit"),
        ("auto-mixed", "compressed-tensors", {}, "auto-mixed chooses .*: compressed-tensors holds"),
        ("auto-mixed", "gptq", {}, "auto-mixed chooses .*, and gptq holds one width for all"),
        ("lora:steps=1", "gguf", {}, "gguf does not know such matrices"),
        ("distill-soft", "gptq", {}, "nothing is quantized, which gptq is for"),
        ("gptq", "gguf", {"sliding_window": 16, "model_type": "mistral"}, "sliding window"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_matrix_and_the_way_out(
    technique: str, format: str, changes: Any, reason: str, tmp_path: Path, watch: Watch
) -> None:
    source = write_source(tmp_path / "source", **changes)
    given = ["prune-mlp:sparsity=0.5", technique] if technique == "distill-soft" else [technique]
    with pytest.raises(Refused, match=reason):
        applying.apply(plan(str(source), *given), tmp_path / "out", format)
    assert not watch.begun


def test_a_model_that_runs_through_transformers_is_refused_before_the_work(
    tmp_path: Path, watch: Watch
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 96, "n_positions": 32}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1))
    model.save_pretrained(tmp_path / "source")
    for format in FORMATS:
        with pytest.raises(Refused, match="not a gpt2, which runs through transformers"):
            applying.apply(plan(str(tmp_path / "source"), "weight-int8"), tmp_path / "out", format)
    assert not watch.begun


@pytest.mark.parametrize(
    ("technique", "format"), [("weight-int8", "compressed-tensors"), ("cast:dtype=fp32", "gguf")]
)
def test_a_quantized_source_may_be_written_in_another_format(
    technique: str, format: str, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source")
    applying.apply(plan(str(source), "weight-int4"), tmp_path / "one")
    applying.apply(plan(str(tmp_path / "one"), technique), tmp_path / "two", format)
    load_folder(tmp_path / "two")


def test_numbers_alone_are_refused_when_they_are_known(tmp_path: Path, watch: Watch) -> None:
    source = write_source(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.self_attn.o_proj.weight"] *= 1e-7
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        Refused, match=r"layers\.0\.o is .* formats that hold it: trimtab, compress"
    ):
        applying.apply(plan(str(source), "weight-int4"), tmp_path / "out", "gptq")
    assert watch.begun
