"""The command on a trial's page: it is the one that writes that trial's model."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app.cli import main as cli
from core import techniques
from core.catalogue import models
from core.data.files import read_datasets
from core.plan import Plan
from core.study import Study, Trial

MAIN = Path(__file__).parents[3] / "app" / "main.py"


def commands(trial: str) -> list[str]:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.query_params["trial"] = trial
    at._page_hash = calc_hash("trial")
    at.run()
    assert not at.exception
    return [one.value for one in at.code if one.language == "bash"]


def test_the_command_repeats_the_techniques_that_change_the_weights(
    fill: Callable[[Study], None], synthetic_study: Study, tmp_path: Path
) -> None:
    (tmp_path / "my notes.txt").write_text("some text to judge by")
    data = read_datasets([str(tmp_path / "my notes.txt")])
    case = replace(synthetic_study.baseline.plan.case, model=models.resolve("pycode"), data=data)
    plans = {
        "t-0000": Plan(case, ()),
        "t-0001": Plan(
            case,
            tuple(map(techniques.parse, ("gptq:bits=3,damping=0.015", "kv-cache:bits=4"))),
            seed=7,
        ),
    }

    def changed(trial: Trial) -> Trial:
        return replace(trial, plan=plans[trial.id]) if trial.id in plans else trial

    fill(replace(synthetic_study, trials=tuple(map(changed, synthetic_study.trials))))
    (command,) = commands("t-0001")
    words = shlex.split(command)
    assert words[0] == "trimtab"
    parsed = cli.parser().parse_args(words[1:])
    assert parsed.model == "pycode"
    assert [techniques.parse(one) for one in parsed.technique] == [plans["t-0001"].techniques[0]]
    assert parsed.seed == 7
    assert parsed.data == [str(tmp_path / "my notes.txt")]
    assert commands("t-0000") == []
