"""Which studies are worth a GPU's minutes, in the order in which their answers are missed most.

Makes Studies and Plans of the target that this box is; measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core import techniques
from core.catalogue import models, workloads
from core.ids import new_id, now
from core.plan import Case, Plan, Technique
from core.priorities import Priorities
from core.study import Study
from core.target import Target

# Weights in 4 and 8 bit and NF4; 8-bit weights and inputs as FP8 and as integers; the cache.
WEIGHTS = ("weight-int4", "weight-int8", "fp8:activations=8", "w8a8", "nf4")
CACHE = ("kv-cache:bits=8",)


@dataclass(frozen=True)
class Question:
    """One study: each of `techniques` is tried after the unchanged model, one request at a time. A
    `batch` above 1 is stacked on each and, as nobody fills it, timed apart (core.measure.sweep):
    the unchanged model would need minutes for so many requests in turn. The study takes at
    most `share` of the time of all.
    """

    name: str
    model: str
    techniques: tuple[str, ...]
    share: float
    batch: int = 1


QUESTIONS = (
    Question("8b-1", "shape:llama-3.1-8b", WEIGHTS + CACHE, 0.65),
    Question("pycode-1", "pycode", ("weight-int4", "weight-int8", "speculative", *CACHE), 0.25),
    Question("0.5b-1", "shape:qwen2.5-0.5b", WEIGHTS + CACHE, 0.25),
    Question("8b-64", "shape:llama-3.1-8b", WEIGHTS + CACHE, 0.5, 64),
    Question("8b-8", "shape:llama-3.1-8b", WEIGHTS + CACHE, 0.5, 8),
    Question("0.5b-64", "shape:qwen2.5-0.5b", WEIGHTS + CACHE, 0.5, 64),
    Question("0.5b-8", "shape:qwen2.5-0.5b", WEIGHTS + CACHE, 0.5, 8),
    Question("pycode-64", "pycode", ("weight-int4", "weight-int8", "nf4"), 0.5, 64),
    Question("pycode-8", "pycode", ("weight-int4", "weight-int8", "nf4"), 0.5, 8),
)
# What a processor measures in their place.
REHEARSED = (
    Question("8b-1", "pycode-small", ("weight-int4",), 0.6),
    Question("8b-8", "pycode-small", (), 0.6, 8),
)


def questions(rehearsal: bool, only: Sequence[str] = ()) -> tuple[Question, ...]:
    """All, or those named; ValueError names one that is not known."""
    known = {question.name: question for question in (REHEARSED if rehearsal else QUESTIONS)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(
            f"TRIMTAB_GPU_STUDIES: there is no study {unknown[0]!r}; known are {', '.join(known)}"
        )
    return tuple(known[name] for name in only or known)


def study(question: Question, target: Target) -> tuple[Study, tuple[Plan, ...]]:
    """The study of a question with its plans, the unchanged model first."""
    case = Case(models.resolve(question.model), target, workloads.resolve("chat"))
    stacks: list[tuple[Technique, ...]] = [()]
    stacks += [(techniques.parse(text),) for text in question.techniques]
    if question.batch > 1:
        batch = techniques.parse(f"static-batch:size={question.batch}")
        stacks = [(), *((*stack, batch) for stack in stacks)]
    plans = tuple(Plan(case, stack) for stack in stacks)
    return Study(new_id("s"), case, Priorities(), created_at=now()), plans
