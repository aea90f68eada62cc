"""The user's tasks: multiple choice ranked by likelihood, and answers by exact match, item by item
with the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from core.data.parsing import AnswerTask, ChoiceTask
from core.data.passages import opened
from core.errors import BadInput
from core.measure.quality.images import share, shares
from core.measure.quality.scores import continuation_score, encode_pair, greedy_text
from core.measurement import Measurement

Item = TypeVar("Item")
Report = Callable[[float], None]


def choice_quality(
    engine: Any,
    baseline: Any | None,
    tokenizer: Any,
    prefix: Sequence[int],
    tasks: Sequence[ChoiceTask],
    name: str,
    report: Report = lambda share: None,
) -> list[Measurement]:
    """`task_accuracy` by the summed log-likelihood of each choice behind its prompt (what lm-eval
    calls acc), `task_accuracy_norm` by the sum over the choice's bytes (its acc_bytes; its acc_norm
    divides by characters), and flips of the first.
    """
    ours, theirs = [], []
    for number, task in enumerate(tasks):
        ours.append(ranked(engine, tokenizer, prefix, task))
        if baseline is not None:
            theirs.append(ranked(baseline, tokenizer, prefix, task))
        report((number + 1) / len(tasks))
    summed = f"{name}; choices ranked by summed log-likelihood (acc of lm-eval)"
    by_length = f"{name}; log-likelihood over the choice's UTF-8 bytes (acc_bytes of lm-eval)"
    raw, norm = zip(*ours, strict=True)
    base_raw, base_norm = zip(*theirs, strict=True) if theirs else (None, ())
    return [
        *shares("task_accuracy", raw, base_raw, summed),
        share("task_accuracy_norm", norm, by_length, base_norm),
    ]


def ranked(
    engine: Any, tokenizer: Any, prefix: Sequence[int], task: ChoiceTask
) -> tuple[bool, bool]:
    """Whether the right choice has the largest log-likelihood, and the largest one per byte."""
    sums = []
    for choice in task.choices:
        context, continuation = encode_pair(
            tokenizer, prefix, task.prompt, joined(task.prompt, choice)
        )
        sums.append(continuation_score(engine, context, continuation, prefix)[0])
    lengths = np.array([len(choice.encode()) for choice in task.choices])
    likelihoods = np.array(sums)
    return bool(likelihoods.argmax() == task.answer), bool(
        (likelihoods / lengths).argmax() == task.answer
    )


def joined(prompt: str, choice: str) -> str:
    """The choice as it follows the prompt: behind a space unless either brings its own."""
    return choice if prompt[-1:].isspace() or choice[:1].isspace() else " " + choice


def answer_quality(
    engine: Any,
    baseline: Any | None,
    tokenizer: Any,
    prefix: Sequence[int],
    tasks: Sequence[AnswerTask],
    name: str,
    report: Report = lambda share: None,
) -> list[Measurement]:
    """`task_accuracy` by exact match of greedy text with the answer, runs of white space counted as
    one space, and flips.
    """
    ours, theirs = [], []
    for number, task in enumerate(tasks):
        ours.append(answered(engine, tokenizer, prefix, task))
        if baseline is not None:
            theirs.append(answered(baseline, tokenizer, prefix, task))
        report((number + 1) / len(tasks))
    how = f"{name}; exact match of greedy text up to its stop, white space normalised"
    return shares("task_accuracy", ours, theirs or None, how)


def answered(engine: Any, tokenizer: Any, prefix: Sequence[int] | None, task: AnswerTask) -> bool:
    """Whether greedy text behind the prompt is the answer; `prefix` are the ids that begin a text,
    None for none."""
    prefix = prefix or ()
    ids = opened(tokenizer.encode(task.prompt, add_special_tokens=False).ids, prefix)
    if not ids:
        raise BadInput("a prompt has no tokens for this model")
    text = greedy_text(engine, tokenizer, ids, (task.stop,), task.max_tokens, prefix)
    return " ".join(text.split()) == " ".join(task.answer.split())


def spread(items: Sequence[Item], most: int) -> tuple[tuple[Item, ...], str]:
    """At most `most` of the items, evenly spread, and how many they are in words."""
    if len(items) <= most:
        return tuple(items), f"all {len(items):,}"
    chosen = np.linspace(0, len(items) - 1, most).astype(int)
    return tuple(items[index] for index in chosen), f"{most:,} of {len(items):,}, evenly spread,"
