"""The command as a user of a box meets it: real processes without the dashboard's libraries, real
trials, signals, and a store that takes in what was written.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.ingest import ingest
from app.planning import plan_study
from core.errors import BadInput
from core.journal.journal import examine
from core.measure.child.processes import marks, table
from core.measure.study.__main__ import main
from core.measure.study.archive import write
from core.measure.study.collect import collect
from core.measure.study.here import for_this_box
from core.measure.study.run import begin
from core.measure.study.standing import standing_of
from core.priorities import Priorities
from core.study import Study
from store import open_store


def bundled(planned: tuple, path: Path, with_model: bool = True) -> Path:
    plan, sources = collect(*planned, with_model)
    write(path, plan, sources)
    return path


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def study_in(out: Path) -> Study:
    (place,) = out.glob("s-*")
    study = standing_of(place).study
    assert study is not None
    return study


def test_a_study_is_measured_where_the_dashboard_is_not_installed(
    planned: Callable, on_a_box: Callable, tmp_path: Path
) -> None:
    """The second plan is refused, the third runs; a store takes all of it in as its own."""
    study, plans = planned("pycode-small", "weight-int8", "speculative:draft=pycode-small")
    path, out = bundled((study, plans), tmp_path / "p.json"), tmp_path / "out"
    code, said, err = end(on_a_box(path, out))
    assert (code, err) == (0, "")
    lines = said.splitlines()
    told = [line.split()[1] for line in lines if line.startswith("[")]
    assert told == ["refused", "done", "done"]
    assert any("TPOT" in line and "x)" in line for line in lines)
    there = study_in(out)
    assert there.id != study.id
    assert there.parent_id == study.id
    assert [trial.state for trial in there.trials][:2] == ["done", "done"]
    assert {trial.state for trial in there.trials[2:]} == {"refused"}
    assert [t.plan.techniques for t in there.trials] == [plan.techniques for plan in plans]
    assert all(not examine(path).checked.damage for path in out.glob("s-*/*.jsonl"))
    box = json.loads((out / "box.json").read_text())
    assert {each.environment for each in there.trials[0].measurements} == {box["environment"]}
    store = open_store("memory:")
    taken = ingest(store, tmp_path / "studies", out)
    assert taken.study_ids == (there.id,)
    assert taken.notices == ()
    assert [machine.rpartition(", ")[0] for machine in taken.machines] == [box["machine"]]
    assert store.study(there.id) == there
    code, said, _ = end(on_a_box(path, out))
    assert code == 0
    assert "has ended" in said
    assert store.study(there.id) == study_in(out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_was_stopped_goes_on_with_the_same_command(
    number: signal.Signals, planned: Callable, on_a_box: Callable, tmp_path: Path
) -> None:
    path, out = bundled(planned(), tmp_path / "p.json"), tmp_path / "out"
    process = on_a_box(path, out)
    over = time.monotonic() + 120
    while not list(out.glob("s-*/t-*.jsonl")) and time.monotonic() < over:
        time.sleep(0.05)
    trial = next(out.glob("s-*/t-*.jsonl")).stem.rpartition("-")[0]
    os.kill(process.pid, number)
    code, said, _ = end(process)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    time.sleep(0.5)
    assert not [p for p in table() if marks(p).get("TRIMTAB_TRIAL") == trial]
    store = open_store("memory:")
    ingest(store, tmp_path / "studies", out)
    stopped = store.study(study_in(out).id)
    assert stopped is not None
    assert stopped.state == "paused"
    if number != signal.SIGKILL:
        assert "run the same command again" in said
    code, said, err = end(on_a_box(path, out))
    assert (code, err) == (0, "")
    there = study_in(out)
    assert [trial.state for trial in there.trials] == ["done", "done"]
    assert there.trials[0].attempt == 2
    assert ingest(store, tmp_path / "studies", out).notices == ()
    assert store.study(there.id) == there


def test_a_model_of_ones_own_goes_along_or_is_given_there(
    planned: Callable, on_a_box: Callable, folder: Path, tmp_path: Path
) -> None:
    study, plans = planned(folder)
    along = bundled((study, plans), tmp_path / "along.zip")
    alone = bundled((study, plans), tmp_path / "alone.json", with_model=False)
    moved = folder.rename(tmp_path / "moved")
    first = on_a_box(along, tmp_path / "out", "--only", "1")
    code, _, err = end(first)
    assert (code, err) == (0, "")
    there = study_in(tmp_path / "out")
    assert [trial.state for trial in there.trials] == ["done", "queued"]
    assert there.state == "paused"
    assert there.case.model == study.case.model
    assert there.trials[0].value("disk_bytes")
    code, _, err = end(on_a_box(alone, tmp_path / "other"))
    assert code == 2
    assert "give its folder with --model FOLDER" in err
    assert len(err.strip().splitlines()) == 1
    assert not list((tmp_path / "other").glob("s-*"))
    code, _, err = end(on_a_box(alone, tmp_path / "other", "--model", moved, "--only", "1"))
    assert (code, err) == (0, "")
    (moved / "config.json").write_text((moved / "config.json").read_text() + "\n")
    code, _, err = end(on_a_box(alone, tmp_path / "third", "--model", moved))
    assert code == 2
    assert "config.json are not those that the study was planned with" in err


def test_time_that_is_over_leaves_the_rest_for_the_next_call(
    planned: Callable, on_a_box: Callable, tmp_path: Path
) -> None:
    path, out = bundled(planned(), tmp_path / "p.json"), tmp_path / "out"
    began = time.monotonic()
    code, _, _ = end(on_a_box(path, out, "--seconds", "0.5"))
    assert code == 0
    assert time.monotonic() - began < 60
    states = [trial.state for trial in study_in(out).trials]
    assert states == ["cancelled", "cancelled"]
    assert "run the same command again" in study_in(out).trials[1].reason
    code, _, _ = end(on_a_box(path, out))
    assert code == 0
    assert [trial.state for trial in study_in(out).trials] == ["done", "done"]


def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, planned: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundled(planned(), tmp_path / "p.json")
    for words, named in (
        ((tmp_path / "none.json", tmp_path / "out"), "none.json cannot be read"),
        ((path, path), "p.json"),
        ((path, tmp_path / "out", "--model", tmp_path), "needs no folder"),
        ((path, tmp_path / "out", "--data", path), "none of the files"),
    ):
        assert main([*map(str, words)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.strip().splitlines()) == 1
        assert named in captured.err
        assert not list(tmp_path.glob("out/s-*"))


def test_a_sensor_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sensor = plan_study("digits-cnn", "stm32h7a3", "sensor-frame", Priorities())
    path = bundled(sensor, tmp_path / "p.json")
    assert main([str(path), str(tmp_path / "out")]) == 2
    assert "is planned for the sensor stm32h7a3" in capsys.readouterr().err


def test_it_does_not_go_on_where_the_gpu_is_not(
    planned: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = planned()
    path, out = bundled(made, tmp_path / "p.json"), tmp_path / "out"
    plan, _ = collect(*made)
    study, plans, _ = for_this_box(plan, "s-0000000000000a", tmp_path)
    case = replace(study.case, target=replace(study.case.target, kind="cuda"))
    begin(out, replace(study, case=case), tuple(replace(each, case=case) for each in plans))
    assert main([str(path), str(out)]) == 2
    assert "cannot go on here" in capsys.readouterr().err


def test_whoever_reads_its_lines_may_go(
    planned: Callable, on_a_box: Callable, tmp_path: Path
) -> None:
    path, out = bundled(planned(), tmp_path / "p.json"), tmp_path / "out"
    process = on_a_box(path, out, "--only", "1")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("study ")
    process.stdout.close()
    assert process.wait(200) == 0
    assert study_in(out).trials[0].state == "done"


def test_two_boxes_make_two_studies_of_one_plan(planned: Callable, tmp_path: Path) -> None:
    plan, _ = collect(*planned())
    store = open_store("memory:")
    for box, study_id in enumerate(("s-0000000000000a", "s-0000000000000b")):
        study, plans, _ = for_this_box(plan, study_id, tmp_path)
        begin(tmp_path / f"box{box}", study, plans)
        ingest(store, tmp_path / "studies", tmp_path / f"box{box}")
    assert len(store.studies()) == 2
    with pytest.raises(BadInput):
        ingest(store, tmp_path / "studies", tmp_path)


def test_a_plan_with_numbers_that_no_model_has_is_refused_and_leaves_nothing(
    planned: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundled(planned("pycode-small"), tmp_path / "plan.json")
    path.write_text(path.read_text().replace('"layers": ', '"layers": 9' + "0" * 30))
    assert main([str(path), str(tmp_path / "OUT")]) == 2
    assert "write it again with `trimtab bundle`" in capsys.readouterr().err
    assert list((tmp_path / "OUT").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_a_way_out(
    planned: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundled(planned("pycode-small"), tmp_path / "plan.json")
    assert main([str(path), str(path)]) == 2
    assert "give another folder for OUT" in capsys.readouterr().err
