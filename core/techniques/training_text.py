"""Owns what techniques calibrate on and learn from, and the words that say where it came from.

In this order: the part of the user's data that nothing is judged on (core.data.split); for a
bundled model the bundled data that it was trained on; text that the unchanged model writes itself
(as in LLM-QAT, Liu et al. 2023: drawn at temperature 1 behind its start token, by the plan's seed).
Random weights get random tokens. The loading of what is learned from counts as preparation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.condition import Condition
from core.data.passages import digits, encode, opened, training_stream
from core.data.split import Parts, load_parts
from core.errors import Refused
from core.measurement import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from core.techniques.deployment import Deployment

# The conditions of the measurement `learning_items`: `calibration=data` and so on.
SOURCES = ("data", "bundled", "sampled", "random")
# Less of the user's text than this is too little to learn from.
LEAST_BYTES = 4_000
# The model writes so many texts at once, of at most so many tokens.
TOGETHER, LENGTH = 32, 256
# A share of that room; texts that fill less of it cost more time than they are worth.
LEAST_FILLED = 0.125
# Training reads what the model wrote more than once: writing is slower than learning.
LEAST_SAMPLED, SAMPLED_SHARE = 16_384, 0.25


@dataclass(frozen=True)
class Stream:
    """Token ids to cut windows from; `source` is one of SOURCES, `words` say it in a sentence."""

    ids: Sequence[int]
    source: str
    words: str


def stream(deployment: Deployment, tokens: int) -> Stream:
    """Ids to learn from, `tokens` of them or fewer; Refused when there is no text at all."""
    learned = deployment.learned
    before: Stream | None = learned.get("text")
    if before is not None and before.source == "sampled":
        tokens = _to_sample(tokens)
    if before is None or learned["asked"] < tokens:
        learned["text"], learned["asked"] = _stream(deployment, tokens), tokens
    text: Stream = learned["text"]
    return text


def remembered(deployment: Deployment) -> dict[str, Any]:
    """What was read so far, as JSON-ready data for recall(); the user's data is read again."""
    state = {key: value for key, value in deployment.learned.items() if key != "parts"}
    text: Stream | None = state.get("text")
    if text is not None:
        state["text"] = {"ids": list(text.ids), "source": text.source, "words": text.words}
    return state


def recall(deployment: Deployment, state: dict[str, Any]) -> None:
    """Go on as if the deployment had read what remembered() gave."""
    text = state.get("text")
    deployment.learned.update(state if text is None else {**state, "text": Stream(**text)})


def _to_sample(tokens: int) -> int:
    return min(tokens, max(LEAST_SAMPLED, int(SAMPLED_SHARE * tokens)))


def images(deployment: Deployment) -> tuple[Tensor, Tensor, str, str]:
    """(images float32 [n, 1, 8, 8], labels int64 [n], source, words) to learn from."""
    import torch

    pictures = parts(deployment).images
    if pictures is None:
        pixels, labels = digits("train")
        return pixels, labels, "bundled", f"the bundled training digits ({_why(deployment)})"
    pixels = torch.from_numpy(pictures.pixels.copy()).reshape(len(pictures), 1, 8, 8)
    return pixels, torch.from_numpy(pictures.labels), "data", _yours("images", parts(deployment))


def parts(deployment: Deployment) -> Parts:
    """The user's data in two, read once."""
    if "parts" not in deployment.learned:
        deployment.learned["parts"] = load_parts(deployment.case.data)
    split: Parts = deployment.learned["parts"]
    return split


def say(deployment: Deployment, use: str, items: int, source: str, what: str) -> None:
    """Note and keep, once, that `use` (`calibration` or `training`) read so many tokens or images.

    `what` is the sentence's rest.
    """
    condition = Condition(use, source)
    if str(condition) in deployment.learned:
        return
    deployment.learned[str(condition)] = True
    text = f"{'calibrated' if use == 'calibration' else 'trained'} on {what}"
    deployment.note(text)
    deployment.keep(
        Measurement("learning_items", (float(items),), "", "measured", text, condition=condition)
    )


def _stream(deployment: Deployment, tokens: int) -> Stream:
    import torch

    case, tokenizer = deployment.case, deployment.tokenizer
    if case.model.source == "shape":
        random = torch.Generator().manual_seed(deployment.seed)
        drawn = torch.randint(0, deployment.engine.vocab_size, (tokens,), generator=random)
        return Stream(drawn.tolist(), "random", "random tokens, as random weights have no text")
    why = _why(deployment)
    if tokenizer is not None:
        texts = parts(deployment).learning_texts()
        if sum(len(text.encode()) for text in texts) >= LEAST_BYTES:
            ids, _ = encode(tokenizer, texts, deployment.prefix, tokens)
            return Stream(ids, "data", _yours("text", parts(deployment)))
        if texts:
            why = "nearly all lines of your text stand in its judged part as well"
        if case.model.source == "bundled":
            ids = training_stream(tokenizer, deployment.prefix, tokens)
            return Stream(ids, "bundled", f"the bundled training text ({why})")
    ids = sampled(deployment, _to_sample(tokens))
    return Stream(ids, "sampled", f"text that the unchanged model wrote itself ({why})")


def _why(deployment: Deployment) -> str:
    return parts(deployment).why_not


def _yours(what: str, split: Parts) -> str:
    return f"your {what} ({', '.join(split.taken)}), the part that nothing is judged on"


def sampled(deployment: Deployment, tokens: int) -> list[int]:
    """At least `tokens` ids of texts that the unchanged model writes, each behind its start token.

    A text ends where the model ends it, unless that leaves nearly all of the room empty: then it
    goes on through its ends. Raises Refused when its answers are not finite.
    """
    engine = deployment.load_baseline()
    length = min(LENGTH, engine.max_positions)
    ids: list[int] = []
    stops, round_ = engine.special_ids.stops, 0
    while len(ids) < tokens:
        texts = _texts(deployment, engine, length, round_, stops)
        if stops and len(texts) < TOGETHER * length * LEAST_FILLED:
            stops = ()
        ids += texts
        round_ += 1
    return ids


def _texts(
    deployment: Deployment, engine: Any, length: int, round_: int, stops: tuple[int, ...]
) -> list[int]:
    import torch

    from core.engine.serve.generate import generate
    from core.engine.serve.sampling import Sampling

    seed = deployment.seed * 1_000_003 + round_
    random = torch.Generator().manual_seed(seed)
    ids = engine.special_ids
    first = deployment.prefix or ((ids.start,) if ids.start is not None else ids.stops[:1])
    if first:
        begin = torch.tensor([first] * TOGETHER)
    else:
        most = engine.vocab_size
        if deployment.tokenizer is not None:
            most = min(most, deployment.tokenizer.get_vocab_size())
        begin = torch.randint(0, most, (TOGETHER, 1), generator=random)
    settings = Sampling(temperature=1.0, seed=seed)
    try:
        new = generate(engine, begin, length - begin.shape[1], settings, stop_ids=stops)
    except RuntimeError as error:
        if "probability" not in str(error):
            raise
        raise Refused(
            f"the answers of {deployment.case.model.id} are not finite, so there is nothing to"
            " learn from them"
        ) from None
    tokens: list[int] = []
    for row, text in zip(begin.tolist(), new.tolist(), strict=True):
        end = next((place for place, token in enumerate(text) if token in stops), len(text))
        # What only stood in for a start token is no part of the text.
        own = text[:end] if first else row + text[:end]
        tokens += opened(own, deployment.prefix)
    return tokens
