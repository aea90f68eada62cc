"""Reading a model in parts, cutting prompts from answers, and what cannot be scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from core.engine.decoder import Decoder
from core.engine.load.load import random_engine
from core.errors import BadInput
from core.files.config.decoder_config import DecoderConfig
from core.files.special_ids import SpecialIds
from core.measure.quality.scores import (
    continuation_score,
    encode_pair,
    greedy_text,
    log_likelihood,
    log_probabilities,
)

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = DecoderConfig(
    family="llama",
    vocab_size=61,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    intermediate_sizes=(32, 32),
    max_positions=64,
    tied_embeddings=False,
)


@pytest.fixture(scope="module")
def engine() -> Decoder:
    found = random_engine(CONFIG, "fp32", 4)
    assert isinstance(found.head.weight, torch.Tensor)
    found.head.weight *= 40
    return found


def row(length: int) -> torch.Tensor:
    return torch.randint(0, 61, (length,), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize(("length", "scored"), [(41, 40), (41, 7), (41, 1), (2, 1), (60, 33)])
@pytest.mark.parametrize("room", [1, 5, 17, 40])
def test_parts_behind_one_cache_are_the_whole(
    engine: Decoder, length: int, scored: int, room: int
) -> None:
    ids = row(length)
    whole = torch.cat(list(log_probabilities(engine, ids, scored)))
    parts = list(log_probabilities(engine, ids, scored, most=room * 61))
    assert whole.shape == (scored, 61)
    assert whole.double().exp().sum(-1) == pytest.approx(np.ones(scored), abs=1e-5)
    assert max(len(part) for part in parts) <= max(room, 1) or length - 1 <= room
    assert torch.cat(parts) == pytest.approx(whole, abs=1e-4)
    logits = engine.forward(ids[None, :-1])[0, -scored:].double()
    assert whole.double() == pytest.approx(torch.log_softmax(logits, -1), abs=1e-5)


def test_a_likelihood_is_the_sum_over_the_scored_tokens(engine: Decoder) -> None:
    ids = row(20)
    table = torch.log_softmax(engine.forward(ids[None, :-1])[0].double(), -1)
    expected = sum(float(table[at - 1, ids[at]]) for at in range(14, 20))
    found, greedy = log_likelihood(engine, ids, 6)
    assert found == pytest.approx(expected, abs=1e-4)
    assert not greedy
    step = ids[:14]
    for _ in range(6):
        step = torch.cat([step, engine.forward(step[None])[0, -1].argmax()[None]])
    assert log_likelihood(engine, step, 6)[1]


def test_logits_that_are_not_finite_are_named() -> None:
    broken = random_engine(CONFIG, "fp32", 4)
    assert isinstance(broken.head.weight, torch.Tensor)
    broken.head.weight[3] = float("nan")
    with pytest.raises(BadInput, match="not finite"):
        log_likelihood(broken, row(9), 4)


def words() -> Any:
    """A tokenizer that joins `a b` into one token across a boundary."""
    names = ["<s>", "a", " b", "a b", " ", "c", " c", "<unk>"]
    made = Tokenizer(
        models.Unigram([(name, -2.0 if name != "a b" else -1.0) for name in names], unk_id=7)
    )
    made.pre_tokenizer = pre_tokenizers.Sequence([])
    return made


@pytest.mark.parametrize(
    ("context", "continuation", "ids"),
    [
        ("a", " c", ([0, 1], [6])),
        ("a ", "c", ([0, 1], [6])),
        ("ac", " b", ([0, 1, 5], [2])),
        # The joined token stands for both: one token is still scored.
        ("a", " b", ([0], [3])),
        ("", "a c", ([0], [1, 6])),
    ],
)
def test_a_pair_is_tokenized_together_and_cut_behind_the_context(
    context: str, continuation: str, ids: tuple[list[int], list[int]]
) -> None:
    assert encode_pair(words(), (0,), context, continuation) == ids


def test_a_prompt_of_nothing_needs_a_start_token() -> None:
    assert encode_pair(words(), (), "a", " c") == ([1], [6])
    with pytest.raises(BadInput, match="start token"):
        encode_pair(words(), (), "", "a")


def test_a_long_prompt_loses_its_beginning_and_a_long_answer_is_refused(engine: Decoder) -> None:
    long = row(100).tolist()
    cut = continuation_score(engine, long[:95], long[95:])
    assert cut == continuation_score(engine, long[35:95], long[95:])
    with pytest.raises(BadInput, match="65 tokens; 1 to 64"):
        continuation_score(engine, long[:5], long[5:70])
    with pytest.raises(BadInput, match="0 tokens"):
        continuation_score(engine, long, [])


class Letters:
    """Decodes ids as letters from a on."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(97 + one % 26) for one in ids)


class Says:
    """An engine that says given ids one after another."""

    max_positions = 12

    def __init__(self, ids: list[int], ends: tuple[int, ...] = ()) -> None:
        self.ids, self.seen = ids, list[int]()
        self.special_ids = SpecialIds(stops=ends)

    def new_cache(self, batch: int, capacity: int) -> Any:
        self.capacity = capacity
        return self

    def forward(self, ids: torch.Tensor, cache: Any, last_only: bool) -> torch.Tensor:
        self.seen.append(ids.shape[1])
        return torch.nn.functional.one_hot(torch.tensor([[self.ids[len(self.seen) - 1]]]), 99)


@pytest.mark.parametrize(
    ("ids", "ends", "stops", "text"),
    [
        ([0, 1, 2, 3, 4], (), (), "abcde"),
        ([0, 1, 2, 3, 4], (), ("d",), "abc"),
        ([0, 1, 2, 3, 4], (), ("cd", "b"), "a"),
        ([0, 1, 2, 3, 4], (2,), ("e",), "ab"),
        ([0, 1, 2, 3, 4], (9, 1), (), "a"),
        ([3, 1], (3,), (), ""),
    ],
)
def test_greedy_text_ends_at_a_stop_or_the_end_token(
    ids: list[int], ends: tuple[int, ...], stops: tuple[str, ...], text: str
) -> None:
    assert greedy_text(Says(ids, ends), Letters(), [5, 5], stops, 5) == text


def test_greedy_text_keeps_room_for_its_tokens() -> None:
    engine = Says(list(range(20)))
    assert greedy_text(engine, Letters(), list(range(40)), (), 4) == "abcd"
    assert engine.seen == [8, 1, 1, 1]
    assert engine.capacity == 12
    assert len(greedy_text(Says(list(range(20))), Letters(), [1], (), 99)) == 11
