"""The trainable forward pass: the same logits as transformers, and gradients that teach."""

from __future__ import annotations

import pytest
import torch
from transformers_models import VARIANTS, lean, transformers_model

from core.engine.reference import TrainableDecoder
from core.files.config.hf_config import from_hf


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_equal_those_of_transformers(variant: str) -> None:
    model = transformers_model(variant)
    ours = TrainableDecoder(from_hf(model.config.to_dict()), model.state_dict())
    ids = torch.randint(0, ours.config.vocab_size, (2, 11))
    want, got = model(ids).logits, ours(ids)
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()
    torch.nn.functional.cross_entropy(want[0], ids[0]).backward()
    torch.nn.functional.cross_entropy(got[0], ids[0]).backward()
    theirs = dict(model.named_parameters())
    for key, weight in ours.weights.items():
        gradient = theirs[key.replace("/", ".")].grad
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6)


def test_hidden_states_equal_those_of_transformers() -> None:
    model = transformers_model("qwen3")
    ours = TrainableDecoder(from_hf(model.config.to_dict()), model.state_dict())
    ids = torch.randint(0, 97, (1, 6))
    want = model(ids, output_hidden_states=True).hidden_states
    _, got = ours(ids, hidden_states=True)
    # transformers' last entry is normed, ours lists the last layer and the norm apart.
    assert len(got) == len(want) + 1
    for mine, theirs in zip([*got[:-2], got[-1]], want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_decoder_to_trainable_and_back_keeps_the_weights() -> None:
    decoder = lean(transformers_model("llama-tied"), "fp32")
    again = TrainableDecoder.from_decoder(decoder).to_decoder("fp32")
    for name, tensor in decoder.export_tensors().items():
        assert torch.equal(again.export_tensors()[name], tensor)
    assert again.config == decoder.config


def test_a_quantized_head_is_no_longer_tied_in_the_copy() -> None:
    decoder = lean(transformers_model("llama-tied"), "bf16")
    decoder.head = decoder.head.to_format("int8")
    copy = TrainableDecoder.from_decoder(decoder)
    assert not copy.config.tied_embeddings
    ids = torch.randint(0, 97, (1, 6))
    with torch.no_grad():
        error = (copy(ids) - decoder.forward(ids)).abs().max()
    assert error < 0.1


def test_training_lowers_the_loss_and_the_engine_sees_it() -> None:
    decoder = lean(transformers_model("llama-tied"), "fp32")
    student = TrainableDecoder.from_decoder(decoder)
    ids = torch.randint(0, 97, (2, 16))

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    before = float(loss_of(decoder.forward(ids)))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        loss_of(student(ids)).backward()
        optimizer.step()
    after = float(loss_of(student.to_decoder("fp32").forward(ids)))
    assert after < 0.5 * before
