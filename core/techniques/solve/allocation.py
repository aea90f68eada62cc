"""Which precision each matrix gets: the least loss at a size, or the least size at a loss.

Pure arithmetic over a table of options; the losses of matrices are taken to add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# The bits that a matrix may get; DENSE stands for one that is left as it is.
WIDTHS = (2, 3, 4, 6, 8)
DENSE = 16


@dataclass(frozen=True)
class Option:
    """A matrix at `bits`: what it costs (bytes) and loses (nats)."""

    bits: int
    cost: float
    loss: float


@dataclass(frozen=True)
class _Move:
    """From one option of a matrix to a cheaper one, `rate` nats a byte saved."""

    name: str
    before: Option
    after: Option

    @property
    def rate(self) -> float:
        return (self.after.loss - self.before.loss) / (self.before.cost - self.after.cost)


# The option chosen for each matrix.
Chosen = dict[str, Option]


def cost(chosen: Chosen) -> float:
    """Bytes of all matrices as chosen."""
    return sum(option.cost for option in chosen.values())


def within_loss(options: Mapping[str, Sequence[Option]], most: float) -> Chosen:
    """The cheapest choice found whose losses add up to at most `most`, or the one of least loss.

    Moves along each matrix's convex hull, the cheapest in nats a byte first: the greedy solution of
    the Lagrangian (Shoham and Gersho 1988); a move that does not fit any more is passed over.
    """
    chosen, moves = _start(options)
    left = most - sum(option.loss for option in chosen.values())
    for move in moves:
        more = move.after.loss - move.before.loss
        if chosen[move.name] is move.before and more <= left:
            chosen[move.name] = move.after
            left -= more
    return chosen


def within_cost(options: Mapping[str, Sequence[Option]], most: float) -> Chosen | None:
    """The choice of the least loss found that costs at most `most`; None when even the cheapest
    costs more.
    """
    chosen, moves = _start(options)
    over = cost(chosen) - most
    done = []
    for move in moves:
        if over <= 0:
            break
        chosen[move.name] = move.after
        over -= move.before.cost - move.after.cost
        done.append(move)
    if over > 0:
        return None
    # The last moves may have saved more than was needed: take back what there is room for.
    for move in sorted(done, key=lambda move: move.before.loss - move.after.loss):
        back = move.before.cost - move.after.cost
        if chosen[move.name] is move.after and over + back <= 0:
            chosen[move.name] = move.before
            over += back
    return chosen


def _start(options: Mapping[str, Sequence[Option]]) -> tuple[Chosen, list[_Move]]:
    """Every matrix at its option of least loss, and the moves from there, the best first."""
    hulls = {name: _hull(choices) for name, choices in options.items()}
    moves = [
        _Move(name, before, after)
        for name, hull in hulls.items()
        for before, after in pairwise(hull)
    ]
    # Along a hull rates rise, so a matrix's moves stay in their order.
    return {name: hull[0] for name, hull in hulls.items()}, sorted(
        moves, key=lambda move: move.rate
    )


def _hull(options: Sequence[Option]) -> list[Option]:
    """The lower convex hull from the least loss to the least cost, by falling cost."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda choice: (choice.loss, choice.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _rate(hull[-1], option) <= _rate(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _rate(before: Option, after: Option) -> float:
    return (after.loss - before.loss) / (before.cost - after.cost)
