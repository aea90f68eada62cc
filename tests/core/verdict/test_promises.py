"""A setting that promises a limit takes the study's, and says when the judged data break it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core import priorities, techniques
from core.caution import Caution
from core.measurement import Measurement
from core.plan import Plan
from core.planner.search import propose
from core.study import Study, Trial
from core.techniques.quantize.auto_mixed import AutoMixed
from core.verdict.environments import cautions, disturbed, warnings
from core.verdict.limits import broken
from tests.core.verdict.noisy_study import noisy_study, timed


def judged(study: Study, words: str, nats: float, spread: float = 0.0005) -> Trial:
    base = study.trials[0]
    windows = timed("kl_nats", np.array([nats - spread, nats, nats + spread] * 4))
    kl = replace(windows, pooled=nats, bounds=(nats - spread, nats + spread))
    plan = Plan(base.plan.case, (techniques.parse(words),))
    return replace(base, id="t9", plan=plan, measurements=(kl,), notes=())


def test_a_promise_that_the_judged_text_breaks_is_said(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    trial = judged(study, "auto-mixed", 0.0220)
    (said,) = broken(trial)
    assert said == (
        "auto-mixed was asked for KL to baseline of at most 0.0200 nat and reached 0.0220 nat"
        " (0.0215 to 0.0225) on the judged data"
    )
    assert cautions(trial) == (Caution("promise", said),)
    assert not disturbed(trial)
    assert any(said in one for one in warnings((trial,)))


@pytest.mark.parametrize(
    ("words", "nats"),
    [
        ("auto-mixed", 0.0199),
        ("auto-mixed:max_kl=0.05", 0.0220),
        ("gptq", 9.0),
        ("auto-mixed", 0.0),
    ],
)
def test_a_promise_that_was_kept_or_never_given_is_silent(
    synthetic_study: Study, words: str, nats: float
) -> None:
    assert broken(judged(noisy_study(synthetic_study), words, nats, 0.0)) == ()


def test_a_promised_size_is_checked_too(synthetic_study: Study) -> None:
    base = noisy_study(synthetic_study).trials[0]
    plan = Plan(base.plan.case, (techniques.parse("auto-mixed:max_mib=8"),))
    size = Measurement("model_bytes", (9.0 * (1 << 20),), "B", "measured", "summed")
    trial = replace(base, plan=plan, measurements=(size,))
    assert "asked for Model size of at most 8.39 MB and reached 9.44 MB" in broken(trial)[0]


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ([], AutoMixed()),
        (["kl_nats<=0.0001"], AutoMixed(max_kl=0.0001)),
        (["kl_nats<=0.0001", "model_bytes<=8388608"], AutoMixed(max_kl=0.0001)),
        (["model_bytes<=8388608"], AutoMixed(max_mib=8.0)),
        (["ttft_s<=1"], AutoMixed()),
    ],
)
def test_proposals_take_the_studys_limits(
    synthetic_study: Study, limits: list[str], wanted: AutoMixed
) -> None:
    asked = priorities.parse([], limits).limits
    plans = propose(synthetic_study.case, "deep", (), 0, asked)
    mixed = [one for plan in plans for one in plan.techniques if isinstance(one, AutoMixed)]
    assert mixed == [wanted]


def test_what_the_user_stated_stays(synthetic_study: Study) -> None:
    from app.planning import plan_study

    limits = priorities.parse([], ["kl_nats<=0.0001"])
    for words, wanted in (
        ("auto-mixed", 0.0001),
        ("auto-mixed:group_size=64", 0.0001),
        ("auto-mixed:max_kl=0.5", 0.5),
        ("auto-mixed:max_kl=0.02", 0.02),
    ):
        _, plans = plan_study("pycode-small", "local", "chat", limits, (words,))
        assert plans[1].techniques[0].max_kl == wanted  # type: ignore[attr-defined]
