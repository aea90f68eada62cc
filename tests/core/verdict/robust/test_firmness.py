"""What would change a choice, against numbers worked out by hand and against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.priorities import Priorities
from core.study import Study, Trial
from core.verdict import utility
from core.verdict.anchor import anchored
from core.verdict.documents import study_document
from core.verdict.recommend import recommend
from core.verdict.robust.firmness import Robustness, robustness
from core.verdict.robust.nearest import Nearest, nearest
from core.verdict.robust.words import sentences
from tests.core.verdict.test_recommend import study_of, trial

WORDS = ("latency", "throughput", "size", "quality")


@pytest.fixture
def trials(synthetic_study: Study) -> tuple[Trial, ...]:
    """The baseline; t1 gains 1 on three words and loses 0.1; t2 gains 2 on them and loses 10."""
    case = synthetic_study.case
    numbers = {"t1": (1.0, 160.0, 200e6, 0.005), "t2": (0.5, 320.0, 100e6, 0.5)}
    rows = [trial(case, 0, "", latency_p95_s=2.0, tokens_per_s=80.0, model_bytes=400e6)]
    for number, (plan, (latency, rate, size, kl)) in enumerate(
        zip(("weight-int8", "weight-int4"), numbers.values(), strict=True), 1
    ):
        rows.append(
            trial(
                case, number, plan,
                latency_p95_s=latency, tokens_per_s=rate, model_bytes=size, kl_nats=kl,
            )
        )  # fmt: skip
    return tuple(rows)


def of(study: Study) -> tuple[Robustness, Trial]:
    study = anchored(study)
    winner = study.trial(recommend(study).trial_id or "")
    assert winner is not None
    return robustness(study, winner), winner


def nearest_of(study: Study) -> Nearest | None:
    study = anchored(study)
    winner = study.trial(recommend(study).trial_id or "")
    assert winner is not None
    return nearest(study, winner)


def test_the_lines_cross_where_they_do_on_paper(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    firm, winner = of(study_of(synthetic_study, [], *trials))
    assert winner.id == "t1"
    assert firm.words == WORDS
    by_word = {(flip.word, flip.rising): flip for flip in firm.weight_flips}
    # 3 - 0.1 x = 6 - 10 x, and x + 1.9 = 2 x - 6.
    assert by_word["quality", False].at == pytest.approx(3 / 9.9)
    assert by_word["quality", False].trial_id == "t2"
    assert by_word["latency", True].at == pytest.approx(7.9)
    # 3 - 0.1 x = 0: so much quality that nothing may change.
    assert by_word["quality", True].at == pytest.approx(30.0)
    assert by_word["quality", True].trial_id == "t0"
    assert ("latency", False) not in by_word


def test_the_share_is_a_volume_of_the_simplex(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    firm, _ = of(study_of(synthetic_study, [], *trials))
    # t2 wins where quality weighs under 1 / 10.9, t0 where it weighs over 10 / 11: the last of four
    # weights that are even on the simplex is under q with probability 1 - (1 - q)^3.
    assert firm.share("t2") == pytest.approx(1 - (1 - 1 / 10.9) ** 3, abs=0.015)
    assert firm.share("t0") == pytest.approx((1 / 11) ** 3, abs=0.003)
    assert sum(share for _, share in firm.shares) == pytest.approx(1.0)


def test_the_nearest_weights_lie_on_the_plane(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    level = nearest_of(study_of(synthetic_study, [], *trials))
    assert level is not None
    assert level.trial_id == "t2"
    # The distance of a point to a plane: |step . weights| / |step|.
    assert level.distance == pytest.approx(6.9 / np.sqrt(3 + 9.9**2))


@pytest.mark.parametrize("seed", range(8))
def test_no_weights_nearer_than_the_nearest_change_the_choice(
    synthetic_study: Study, seed: int
) -> None:
    random = np.random.default_rng(seed)
    case = synthetic_study.case
    rows = [trial(case, 0, "", latency_p95_s=1.0, tokens_per_s=1.0, model_bytes=1.0)]
    plans = ("weight-int8", "static-batch:size=4", "weight-int4", "static-batch:size=8")
    for number, plan in enumerate((*plans, "weight-int4:group_size=64"), 1):
        a, b, c = np.exp2(random.normal(0, 1, 3))
        rows.append(
            trial(
                case, number, plan,
                latency_p95_s=a, tokens_per_s=b, model_bytes=c, kl_nats=0.05 * random.random(),
            )
        )  # fmt: skip
    weights = random.random(4) * (random.random(4) > 0.3) + 1e-3
    study = replace(
        study_of(synthetic_study, [], *rows),
        priorities=Priorities(tuple(zip(WORDS, map(float, weights), strict=True))),
    )
    firm, winner = of(study)
    gains = utility.gains(study, utility.judged(study))
    table = np.array([[gains[row.id][word] for word in WORDS] for row in rows])
    row = [each.id for each in rows].index(winner.id)
    tried = np.abs(weights + random.normal(0, 0.4, (200_000, 4)))
    scores = tried @ table.T
    flipped = scores.max(axis=1) > scores[:, row] + 1e-9
    level = nearest_of(study)
    closest = np.linalg.norm(tried - weights, axis=1)[flipped].min(initial=np.inf)
    if level is None:
        assert not flipped.any()
        return
    assert level.distance <= closest + 1e-9
    at = np.array([weight for _, weight in level.weights])
    taken = [each.id for each in rows].index(level.trial_id)
    assert at.min() >= 0
    assert float(at @ (table[taken] - table[row])) == pytest.approx(0.0, abs=1e-9)
    for flip in firm.weight_flips:
        column = WORDS.index(flip.word)
        beyond = weights.copy()
        beyond[column] = flip.at + (1e-6 if flip.rising else -1e-6)
        if beyond[column] >= 0:
            ahead = beyond @ table.T
            assert ahead.max() > ahead[row]
        within = weights.copy()
        within[column] = flip.at + (-1e-6 if flip.rising else 1e-6)
        ahead = within @ table.T
        assert ahead.max() <= ahead[row] + 1e-9


def test_limits_change_the_choice_at_measured_values(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    limits = ["kl_nats<=0.05", "model_bytes<=300000000"]
    study = study_of(synthetic_study, limits, *trials, weights=["latency=1"])
    firm, winner = of(study)
    assert winner.id == "t1"
    told = {(flip.limit.metric, flip.tightened): flip for flip in firm.limit_flips}
    assert told["kl_nats", False].at == 0.5
    assert told["kl_nats", False].trial_id == "t2"
    # Nothing else is under 300 MB at less KL than 0.005.
    assert told["kl_nats", True].at == 0.005
    assert told["kl_nats", True].trial_id is None
    assert told["model_bytes", True].trial_id is None
    assert ("model_bytes", False) not in told


def test_the_sentences_name_weights_and_limits(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    weights = ["latency=1", "throughput=1", "size=1"]
    study = anchored(study_of(synthetic_study, ["kl_nats<=0.05"], *trials, weights=weights))
    firm, winner = of(study)
    told = " ".join(sentences(study, winner, firm))
    assert "more than 99 % of all weightings of latency, throughput, size and quality" in told
    assert "With KL to baseline of at most 0.500 nat" in told
    # t2 is out by its KL, so only the unchanged model could take over: at a quality of 30, which is
    # further than anybody would go.
    assert "No weight that one would give" in told
    document = study_document(study)["recommendation"]["robustness"]
    assert document["shares"]["t1"] == pytest.approx(firm.share("t1"))
    assert document["weights"] == [
        {"word": "quality", "now": 0.0, "at": pytest.approx(30.0), "trial": "t0"}
    ]


def test_level_trials_and_a_single_one_flip_nothing(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    twin = replace(trials[1], id="t9")
    firm, _ = of(study_of(synthetic_study, [], trials[0], trials[1], twin))
    assert firm.share("t1") == pytest.approx(firm.share("t9"))
    assert all(flip.trial_id != "t9" for flip in firm.weight_flips)
    alone, winner = of(study_of(synthetic_study, [], trials[0]))
    assert nearest_of(study_of(synthetic_study, [], trials[0])) is None
    assert sentences(study_of(synthetic_study, [], trials[0]), winner, alone) == ()
