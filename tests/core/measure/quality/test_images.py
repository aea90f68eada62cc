"""Shares of 0/1 items: accuracy, agreement and flips of classifiers, item by item."""

from __future__ import annotations

import pytest
import torch

from core.measure.quality.images import GROUP, image_quality, share, shares
from core.measurement import Measurement
from core.statistics.paired import paired_interval
from core.statistics.proportions import mcnemar_exact, tango, wilson


class Table(torch.nn.Module):
    """A classifier that answers from a list."""

    def __init__(self, classes: list[int]) -> None:
        super().__init__()
        self.classes = classes
        self.asked: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        start = sum(self.asked)
        self.asked.append(len(images))
        chosen = torch.tensor(self.classes[start : start + len(images)])
        return torch.nn.functional.one_hot(chosen, 10).float()


def by_name(found: list[Measurement]) -> dict[str, Measurement]:
    return {one.metric: one for one in found}


LABELS = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8])
IMAGES = torch.zeros(8, 1, 8, 8)


def test_accuracy_agreement_and_flips_are_shares_with_their_pairs() -> None:
    candidate, baseline = Table([1, 2, 3, 4, 5, 0, 0, 0]), Table([1, 2, 3, 0, 0, 0, 7, 9])
    found = by_name(image_quality(candidate, baseline, IMAGES, LABELS))
    assert found["accuracy"].value == 5 / 8
    assert found["accuracy"].samples == (1, 1, 1, 1, 1, 0, 0, 0)
    assert found["accuracy"].reference == (1, 1, 1, 0, 0, 0, 1, 0)
    assert found["accuracy"].bounds == wilson(5, 8)
    assert found["top1_agreement"].value == 4 / 8
    assert found["top1_agreement"].reference == (1,) * 8
    # Wrong in another way is no flip: Dutta et al. (2024) count changes of being right.
    assert found["flips"].samples == (0, 0, 0, 1, 1, 0, 1, 0)
    assert found["flips"].reference == (0,) * 8
    paired = paired_interval("accuracy", found["accuracy"].samples, found["accuracy"].reference)
    assert paired is not None
    assert paired.difference_bounds == tango(2, 1, 8)
    assert mcnemar_exact(2, 1) == 1.0


def test_the_baseline_agrees_with_itself_by_definition() -> None:
    found = by_name(image_quality(Table([1] * 8), None, IMAGES, LABELS))
    assert found["accuracy"].reference == ()
    assert found["top1_agreement"].bounds == (1.0, 1.0)
    assert found["flips"].bounds == (0.0, 0.0)


def test_many_images_are_classified_in_groups() -> None:
    count = 2 * GROUP + 3
    model = Table([4] * count)
    found = image_quality(
        model, None, torch.zeros(count, 1, 8, 8), torch.full((count,), 4), "made up"
    )
    assert model.asked == [GROUP, GROUP, 3]
    assert found[0].value == 1.0
    assert found[0].method == f"{count} made up"


def test_items_that_do_not_pair_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="longer"):
        shares("accuracy", [True], [True, False], "")
    assert share("accuracy", [True, False], "how").reference == ()
