"""Loading sound folders of every kind, shapes, and a hub that does not answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers_models import transformers_model

from core.engine.classifier import new_classifier
from core.engine.decoder import Decoder
from core.engine.load.load import load_engine, load_folder, random_engine
from core.engine.protocol import ImageEngine, TextEngine
from core.engine.serve.generate import generate
from core.engine.transformers_engine import TransformersEngine
from core.errors import BadInput
from core.files import tables
from core.files.config.classifier import classifier_shapes
from core.files.config.hf_config import from_hf
from core.files.folder import check_folder
from core.files.hub import hub_folder


@pytest.mark.parametrize("shard", ["10GB", "30KB"])
@pytest.mark.parametrize("variant", ["llama", "llama-tied", "mistral-window-5", "qwen2", "qwen3"])
def test_a_folder_saved_by_transformers_gives_its_logits(
    variant: str, shard: str, tmp_path: Path
) -> None:
    model = transformers_model(variant)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    found = check_folder(tmp_path)
    assert (len(found.weight_files) > 1) == (shard == "30KB")
    assert found.bits == 32
    assert found.total_bytes == sum(p.nbytes for p in model.parameters())
    engine, tokenizer = load_folder(tmp_path, "fp32")
    assert isinstance(engine, Decoder)
    assert isinstance(engine, TextEngine)
    assert tokenizer is None
    ids = torch.randint(0, 97, (1, 9))
    with torch.no_grad():
        want = model(ids).logits
    assert (engine.forward(ids) - want).abs().max() <= 2e-5 * want.abs().max()


def test_another_causal_model_runs_through_transformers(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=97, n_embd=48, n_layer=2, n_head=4, n_positions=64, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path)
    engine, _ = load_folder(tmp_path, "fp32")
    assert isinstance(engine, TransformersEngine)
    assert isinstance(engine, TextEngine)
    assert (engine.vocab_size, engine.max_positions) == (97, 64)
    assert engine.weight_bytes() >= sum(p.nbytes for p in model.parameters())
    ids = torch.randint(0, 97, (2, 9))
    with torch.no_grad():
        want = model(ids).logits
    torch.testing.assert_close(engine.forward(ids), want, rtol=1e-4, atol=1e-5)
    cache = engine.new_cache(2, 12)
    engine.forward(ids, cache)
    cache.truncate(4)
    again = engine.forward(ids[:, 4:], cache)
    torch.testing.assert_close(again, want[:, 4:], rtol=1e-4, atol=1e-5)
    assert cache.length == 9
    assert cache.nbytes == 2 * 2 * 2 * 9 * 48 * 4
    with pytest.raises(BadInput, match="do not fit"):
        engine.forward(ids, cache)
    assert generate(engine, ids, 3).shape == (2, 3)


def test_another_model_with_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(key for key in sorted(tensors) if key.endswith("mlp.c_fc.weight"))
    kept = {key: tensor for key, tensor in tensors.items() if key != name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"the tensor .*mlp\.c_fc\.weight is missing"):
        load_folder(tmp_path)
    wrong = tensors | {name: torch.zeros(8, 5)}
    save_file(wrong, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_layer": 2}, "config.json's n_layer is 2, but layer 1 has no tensor"),
        ({"n_layer": 10**7}, "n_layer must be an integer from 1 to 1024"),
        ({"vocab_size": 10}, "vocab_size is 10, no tensor has so many rows"),
        ({"n_inner": 1 << 21}, r"asks for .* weights \(the tensor .*mlp.* alone is"),
        ({"num_labels": 10**9}, "num_labels must be an integer"),
        ({"return_dict": False}, "return_dict must be true"),
        ({"output_attentions": True}, "output_attentions must be false"),
        ({"activation_function": "nonsense"}, r"config.json: transformers makes no gpt2 of it"),
        ({"bos_token_id": 9}, "bos_token_id 9 is no token"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_config is not supported"),
        ({"anything": 10**30}, "anything is out of any range"),
    ],
)
def test_another_model_that_is_not_what_its_config_says_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BadInput, match=sentence):
        load_folder(tmp_path)


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text"])
def test_a_new_gemma_has_norms_of_zero(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family, vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, intermediate_size=8, bos_token_id=1, eos_token_id=2,
        pad_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not model.model.norm.weight.any()
    model.save_pretrained(tmp_path)
    ids = torch.randint(0, 9, (1, 5))
    with torch.no_grad():
        assert torch.equal(load_folder(tmp_path, "fp32")[0].forward(ids), model(ids).logits)
        model.model.layers[0].mlp.gate_proj.weight.zero_()
    model.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"gate_proj.weight holds nothing but zeros"):
        load_folder(tmp_path)


def test_a_norm_of_zero_is_damage_where_nothing_is_added(tmp_path: Path) -> None:
    from transformers import StableLmConfig, StableLmForCausalLM

    config = StableLmConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=8, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = StableLmForCausalLM(config)
    torch.nn.init.zeros_(model.model.norm.weight)
    model.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"norm.weight holds nothing but zeros"):
        load_folder(tmp_path)


def test_transformers_sees_only_the_checked_files(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    mark = tmp_path / "mark"
    (tmp_path / "model" / "custom_generate").mkdir()
    code = f"open({str(mark)!r}, 'w')"
    (tmp_path / "model" / "custom_generate" / "generate.py").write_text(code)
    # Where text ends is read from it, by us; transformers would refuse the rest.
    settings = {"eos_token_id": [3, 4], "cache_implementation": "nonsense", "num_beams": -1}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(settings))
    engine, _ = load_folder(tmp_path / "model")
    assert engine.vocab_size == 9
    assert engine.special_ids.stops == (3, 4)
    assert engine.model.generation_config.eos_token_id == 2
    assert not mark.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "trimtab-mlp", "layers": [32, 16], "classes": 10},
        {"model_type": "trimtab-cnn", "channels": [8, 16], "classes": 10},
    ],
)
def test_classifier_folders_load_and_are_checked(config: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = new_classifier(config)
    assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == classifier_shapes(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    engine = load_engine(tmp_path)
    assert isinstance(engine, ImageEngine)
    assert check_folder(tmp_path).bits == 16
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(engine(images), model(images), rtol=1e-2, atol=1e-2)
    assert engine.weight_bytes() == 4 * sum(t.numel() for t in tensors.values())
    tensors.popitem()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="is missing"):
        load_engine(tmp_path)


def test_the_digest_follows_the_weights_and_the_config(folder: Any) -> None:
    first = check_folder(folder.path).digest
    assert check_folder(folder.path).digest == first
    folder.tensors["model.norm.weight"][3] += 1
    folder.save()
    second = check_folder(folder.path).digest
    folder.change(rms_norm_eps=1e-4)
    assert len({first, second, check_folder(folder.path).digest}) == 3


def test_links_inside_a_hub_cache_are_followed(folder: Any, tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for file in folder.path.iterdir():
        file.rename(cache / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert check_folder(snapshot).family == "llama"


def test_weights_beyond_the_free_memory_are_refused_with_the_arithmetic(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "available_bytes", lambda: 1000)
    with pytest.raises(
        BadInput, match=r"the weights take 0\.00 GB and 0\.00 GB of memory are free"
    ):
        check_folder(folder.path)


def test_random_weights_depend_on_the_seed_only() -> None:
    config = from_hf(transformers_model("qwen2").config.to_dict())
    one, two, other = (random_engine(config, "bf16", seed) for seed in (0, 0, 1))
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(one.forward(ids), two.forward(ids))
    assert not torch.equal(one.forward(ids), other.forward(ids))
    spread = one.layers[0].gate_up.dense().std()
    assert 0.019 < spread < 0.021


def test_a_hub_that_cannot_be_reached_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        BadInput, match=r"'owner/name' could not be fetched .*no route to host"
    ) as e:
        hub_folder("owner/name")
    assert "\n" not in str(e.value)


def test_the_hub_is_asked_for_what_belongs_to_the_model_and_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    there = [
        "config.json", "model.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
    ]  # fmt: skip
    others = [
        "modeling.py", "pytorch_model.bin", "onnx/config.json", "adapters/model.safetensors",
        "assets/x.json", "original/tokenizer.model", "x.gguf",
    ]  # fmt: skip
    asked: list[str] = []

    def fetch(name: str, allow_patterns: list[str], ignore_patterns: list[str], **_: Any) -> str:
        asked.extend(
            filter_repo_objects(
                there + others, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        return "."

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    hub_folder("owner/name")
    assert asked == there


def test_an_unknown_name_and_an_unknown_dtype_are_refused(folder: Any) -> None:
    with pytest.raises(BadInput, match="no folder and no bundled model"):
        load_engine("nowhere-to-be-found")
    with pytest.raises(BadInput, match="no folder and no bundled model"):
        load_engine("./nowhere")
    with pytest.raises(BadInput, match="dtype 'fp8' is not one of"):
        load_folder(folder.path, "fp8")


def test_the_preflight_needs_no_torch() -> None:
    code = "import sys, core.files.folder, core.engine.load.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
