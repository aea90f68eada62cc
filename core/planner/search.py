"""Which plans are worth measuring for a case: the baseline, each technique alone, and stacks that
make sense. What is worth trying is said by the techniques, how they stack by their kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from core.plan import Case, Plan, Technique
from core.planner.presets import preset as find_preset
from core.priorities import Limit
from core.techniques import TECHNIQUES
from core.techniques.base import QUICK, STANDARD, Proposal
from core.techniques.kinds import KINDS, STACKS, Stack, place, refuse

# Behind all that a quick search tries, in turns.
LATER = 100


def propose(
    case: Case,
    preset: str,
    wanted: tuple[tuple[Technique, ...], ...] = (),
    seed: int = 0,
    limits: Sequence[Limit] = (),
) -> tuple[Plan, ...]:
    """Plans in the order to measure them; the baseline is always first.

    With `wanted` stacks of techniques: each as it is, in the order of their kinds; techniques that
    are all wanted alone are also put together where the order makes sense. Without:
    what the techniques propose for the case at the preset's depth, with the study's hard `limits`
    in the settings that promise one. Plans whose technique refuses the case are included, so that
    the refusal is seen.
    """
    plans: dict[str, Plan] = {}
    for stack in [(), *(_wanted(case, wanted) if wanted else _proposed(case, preset, limits))]:
        plan = Plan(case, stack, seed)
        plans.setdefault(plan.key, plan)
    return tuple(plans.values())


def _wanted(case: Case, wanted: tuple[tuple[Technique, ...], ...]) -> list[tuple[Technique, ...]]:
    stacks = [_in_order(stack) for stack in wanted]
    if len(wanted) > 1 and all(len(stack) == 1 for stack in wanted):
        together = _in_order(technique for stack in wanted for technique in stack)
        if refuse(Plan(case, together)) is None:
            stacks.append(together)
    return stacks


def _in_order(techniques: Iterable[Technique]) -> tuple[Technique, ...]:
    return tuple(sorted(techniques, key=lambda technique: place(technique.kind)))


def _proposed(case: Case, preset: str, limits: Sequence[Limit]) -> list[tuple[Technique, ...]]:
    """Single techniques and stacks of them, sorted by their turns."""
    depths = (QUICK,) if preset == QUICK else (QUICK, STANDARD)
    steps = find_preset(preset).distill_steps
    proposals = [proposal for proposal in _offered(case) if proposal.depth in depths]
    turns: list[tuple[int, tuple[Proposal, ...]]] = [
        (_turn(proposal), (proposal,)) for proposal in proposals if proposal.alone
    ]
    for stack in STACKS:
        if stack.depth in depths:
            turns += [(stack.turn, members) for members in _members(stack, proposals)]
    turns.sort(key=lambda entry: entry[0])
    return [
        tuple(member.technique.within(limits).with_steps(steps) for member in members)
        for _, members in turns
    ]


def _offered(case: Case) -> list[Proposal]:
    """What the registered techniques propose for the case."""
    where = "mcu" if case.target.kind == "mcu" else case.model.task
    random = case.model.source == "shape"
    return [
        proposal
        for technique in TECHNIQUES
        if where in technique.searched_for and not (random and technique.needs_trained)
        for proposal in technique.proposals(case)
    ]


def _turn(proposal: Proposal) -> int:
    if proposal.turn is not None:
        return proposal.turn
    return KINDS[proposal.technique.kind].turn + LATER * (proposal.depth == STANDARD)


def _members(stack: Stack, proposals: Sequence[Proposal]) -> list[tuple[Proposal, ...]]:
    """Every way to fill a stack's parts; none when a part that it needs is not proposed."""
    choices: list[list[Proposal]] = []
    for part in stack.parts:
        kind, _, role = part.removeprefix("?").partition(":")
        fitting = [
            proposal
            for proposal in proposals
            if (proposal.technique.kind, proposal.role) == (kind, role)
        ]
        if fitting or not part.startswith("?"):
            choices.append(fitting)
    return list(product(*choices))
