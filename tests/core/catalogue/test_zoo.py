"""The bundled models are what their cards say: parameters, text, accuracy, size."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors import safe_open

from core.catalogue import models
from core.catalogue.zoo import corpus
from core.data.passages import digits
from core.engine.load.load import load_engine, load_tokenizer

LANGUAGE = ("pycode", "pycode-small")
IMAGES = ("digits-cnn", "digits-mlp")


@pytest.mark.parametrize("name", models.BUNDLED)
def test_the_card_counts_the_parameters_in_the_file(name: str) -> None:
    total = 0
    with safe_open(str(models.ZOO / name / "model.safetensors"), framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - the handle is no mapping
            tensor = file.get_tensor(key)
            assert tensor.dtype == torch.bfloat16
            assert bool(torch.isfinite(tensor).all())
            total += tensor.numel()
    assert models.card(name)["parameters"] == total
    assert models.resolve(name).params() == total
    assert models.card(name)["model"] == name


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_card_says_what_it_was_judged_on_and_its_numbers_agree(name: str) -> None:
    card = models.card(name)
    texts = corpus.held_out_set()
    per_token, per_byte = card["held_out_nats_per_token"], card["held_out_nats_per_byte"]
    assert math.exp(per_token) == pytest.approx(card["held_out_perplexity"], rel=1e-3)
    share = card["held_out_tokens"] / card["held_out_bytes"]
    assert per_byte == pytest.approx(per_token * share, abs=2e-4)
    if texts.digest == card["held_out_digest"]:
        assert texts.bytes == card["held_out_bytes"]
        tokenizer = load_tokenizer(name)
        tokens = sum(len(tokenizer.encode(text).ids) + 1 for text in texts.texts)
        assert card["held_out_tokens"] == tokens - 1
    else:
        # Another Python carries other text: the card names the Python it speaks of.
        assert card["python"] != ""


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_two_language_models_share_one_tokenizer(name: str) -> None:
    first, other = (models.ZOO / one / "tokenizer.json" for one in LANGUAGE)
    assert first.read_bytes() == other.read_bytes()
    config = json.loads((models.ZOO / name / "config.json").read_text())
    assert load_tokenizer(name).get_vocab_size() == config["vocab_size"]
    assert load_tokenizer(name).token_to_id("<|endoftext|>") == config["bos_token_id"] == 0


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_tokenizer_gives_every_text_back(name: str) -> None:
    tokenizer = load_tokenizer(name)
    for text in ("def f(x):\n\treturn x  # ≈ 漢字 🙂\r\n", "", "   \n\n   ", "\x00\x7f"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("name", IMAGES)
def test_a_classifier_reaches_the_accuracy_of_its_card(name: str) -> None:
    engine, card = load_engine(name), models.card(name)
    for part, key in (("held_out", "held_out_accuracy"), ("train", "training_accuracy")):
        images, labels = digits(part)
        with torch.inference_mode():
            accuracy = (engine(images).argmax(-1) == labels).double().mean().item()
        assert accuracy == pytest.approx(card[key], abs=0.005)
    assert card["held_out_images"] == len(digits("held_out")[1])
    assert card["training_images"] == len(digits("train")[1])
    assert card["held_out_accuracy"] > 0.95


@pytest.mark.parametrize(("name", "most"), [("pycode", 16), ("pycode-small", 19)])
def test_a_language_model_learned_something(name: str, most: float) -> None:
    assert models.card(name)["held_out_perplexity"] < most


def test_the_larger_sibling_is_clearly_the_better_one() -> None:
    large, small = (models.card(name)["held_out_nats_per_byte"] for name in LANGUAGE)
    assert large < 0.96 * small


def test_the_zoo_stays_under_forty_megabytes() -> None:
    size = sum(path.stat().st_size for path in models.ZOO.rglob("*") if path.is_file())
    assert size < 40e6


def test_cards_name_seed_script_and_data() -> None:
    for name in models.BUNDLED:
        card = models.card(name)
        assert {"seed", "script", "trained_on", "date", "python", "torch"} <= set(card)
