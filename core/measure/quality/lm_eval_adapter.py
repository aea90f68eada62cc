"""EleutherAI's lm-eval tasks on our engine, where the extra `eval` is installed.

Owns the translation of its three kinds of request and of its per-document results; the tasks, their
data and their prompts are lm-eval's. Imported only when such a task is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from core.data.files import lm_eval_task
from core.data.passages import begun, opened
from core.dataset import Dataset
from core.errors import BadInput
from core.measure.quality.images import share, shares
from core.measure.quality.scores import (
    continuation_score,
    encode_pair,
    greedy_text,
    log_likelihood,
)
from core.measurement import Measurement

# lm-eval's per-document result, by what we call it; the first that a task has is taken.
ACCURACY = ("acc", "exact_match", "em")
NORMALISED = ("acc_norm", "acc_bytes")
MAX_NEW_TOKENS = 256


class Adapter:
    """The methods that lm-eval calls on a model (lm_eval.api.model.LM), over a TextEngine.

    `prefix` is what the tokenizer puts before a text, as lm-eval's default asks it to. Where that
    is nothing and there is no context either, lm-eval's "prefix token" stands in: the start token,
    else the first that ends a text.
    """

    def __init__(self, engine: Any, tokenizer: Any, prefix: Sequence[int]) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.prefix = tuple(prefix)

    @property
    def nothing(self) -> tuple[int, ...]:
        """What stands before a text without any context."""
        ids = self.engine.special_ids
        start: tuple[int, ...] = ids.stops[:1] if ids.start is None else (ids.start,)
        return self.prefix or start

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(summed log p of the continuation, whether it is the greedy text) per request of
        (context, continuation).
        """
        scores = []
        with torch.inference_mode():
            for request in requests:
                context, continuation = request.args
                prefix = self.prefix if context else self.nothing
                pair = encode_pair(self.tokenizer, prefix, context, continuation)
                scores.append(continuation_score(self.engine, *pair, prefix))
        return scores

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Summed log p of each whole text, in windows of the model's context; the last window is
        filled with context from before, so that every token is predicted once. Later windows begin
        with the tokenizer's prefix too, which lm-eval leaves out (core.data.passages).
        """
        sums = []
        with torch.inference_mode():
            for request in requests:
                sums.append(
                    sum(
                        log_likelihood(self.engine, torch.tensor(ids, dtype=torch.int64), scored)[0]
                        for ids, scored in self._rolling(request.args[0])
                    )
                )
        return sums

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy text per request of (context, {"until", "max_gen_toks", ...}); sampling is
        refused.
        """
        answers = []
        with torch.inference_mode():
            for request in requests:
                context, asked = request.args
                if asked.get("do_sample") or float(asked.get("temperature") or 0) > 0:
                    raise BadInput("this lm-eval task draws its answers: only greedy ones are run")
                until = asked.get("until") or ()
                stops = (until,) if isinstance(until, str) else tuple(until)
                ids = self.tokenizer.encode(context, add_special_tokens=False).ids
                most = int(asked.get("max_gen_toks") or MAX_NEW_TOKENS)
                most = min(most, self.engine.max_positions // 2)
                answers.append(
                    greedy_text(
                        self.engine,
                        self.tokenizer,
                        opened(ids, self.prefix),
                        tuple(filter(None, stops)),
                        most,
                        self.prefix,
                    )
                )
        return answers

    def _rolling(self, text: str) -> Iterator[tuple[list[int], int]]:
        """(ids, how many of the last are scored)"""
        ids = opened(self.tokenizer.encode(text, add_special_tokens=False).ids, self.nothing)
        opening = max(1, len(self.prefix))
        window, done = self.engine.max_positions + 1, max(1, len(self.nothing))
        while done < len(ids):
            end = min(done + window - opening, len(ids))
            row = begun(ids, max(0, end - window), end, self.prefix)
            yield row, end - done
            done = end


def task_quality(
    engine: Any, baseline: Any | None, tokenizer: Any, prefix: Sequence[int], dataset: Dataset
) -> list[Measurement]:
    """`task_accuracy` (and `task_accuracy_norm` where the task has it) and flips, one sample a
    document; BadInput when lm-eval, the task or its data cannot be had.
    """
    ours = documents(run_task(Adapter(engine, tokenizer, prefix), dataset), dataset)
    theirs = (
        None
        if baseline is None
        else documents(run_task(Adapter(baseline, tokenizer, prefix), dataset), dataset)
    )
    if theirs is not None and [row[0] for row in ours] != [row[0] for row in theirs]:
        raise BadInput(f"{dataset.id}: lm-eval gave both models different documents")
    how = f"{dataset.id}, {len(ours)} documents, the task's own prompts and data by lm-eval"
    right = [hit for _, hit, _ in ours]
    base_right = None if theirs is None else [hit for _, hit, _ in theirs]
    measurements = shares("task_accuracy", right, base_right, how)
    normalised = [bool(norm) for _, _, norm in ours if norm is not None]
    if len(normalised) == len(ours):
        base = [bool(norm) for _, _, norm in theirs or ()]
        measurements.append(share("task_accuracy_norm", normalised, how + " (acc_norm)", base))
    return measurements


def run_task(adapter: Adapter, dataset: Dataset) -> Sequence[Mapping[str, Any]]:
    """lm-eval's logged samples of the task."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.api.model import LM
    except ImportError as error:
        raise BadInput(
            f"{dataset.id} needs lm-eval: pip install 'trimtab[eval]' ({error})"
        ) from None
    name, limit = lm_eval_task(dataset)
    kind = type("TrimtabLM", (Adapter, LM), {"__init__": _initialise})
    try:
        results = simple_evaluate(
            model=kind(adapter),
            tasks=[name],
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            verbosity="ERROR",
        )
    except BadInput:
        raise
    except Exception as error:  # lm-eval, datasets and their HTTP client raise errors of their own.
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadInput(
            f"{dataset.id} cannot be run: lm-eval knows no such task or its data cannot be reached"
            f" ({type(error).__name__}: {reason})"
        ) from None
    samples = (results or {}).get("samples", {})
    if set(samples) != {name}:
        raise BadInput(f"{dataset.id} is a group of tasks: name one of {', '.join(samples)[:200]}")
    logged: Sequence[Mapping[str, Any]] = samples[name]
    return logged


def _initialise(self: Any, adapter: Adapter) -> None:
    """Both bases at once: lm-eval's keeps a rank and a cache hook."""
    from lm_eval.api.model import LM

    LM.__init__(self)
    Adapter.__init__(self, adapter.engine, adapter.tokenizer, adapter.prefix)


def documents(
    samples: Sequence[Mapping[str, Any]], dataset: Dataset
) -> list[tuple[int, bool, bool | None]]:
    """(document, right, right by length or None) of lm-eval's samples, each document once."""
    rows: dict[int, tuple[int, bool, bool | None]] = {}
    for sample in samples:
        right = next((sample[name] for name in ACCURACY if name in sample), None)
        if right not in (0, 1):
            raise BadInput(
                f"{dataset.id} has no result that is right or wrong per document: tasks with"
                f" {' or '.join(ACCURACY)} can be measured"
            )
        norm = next((sample[name] for name in NORMALISED if name in sample), None)
        document = int(sample["doc_id"])
        rows.setdefault(document, (document, bool(right), None if norm is None else bool(norm)))
    if not rows:
        raise BadInput(f"{dataset.id} gave no documents")
    return [rows[document] for document in sorted(rows)]
