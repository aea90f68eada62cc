"""The command line as a user meets it: real processes, exit codes, one sentence on stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.cli import main as cli
from app.cli.run import seconds
from core.errors import BadInput
from store import open_store


def trimtab(*words: str, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words, "--store", str(store)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("run", "--model", "pycod"), "pycode"),
        (("run", "--model", "/no/such/folder"), "/no/such/folder"),
        (("run", "--model", "pycode", "--target", "h1000"), "h1000"),
        (("run", "--model", "pycode", "--workload", "chatt"), "chatt"),
        (("run", "--model", "pycode", "--technique", "magic"), "weight-int8"),
        (("run", "--model", "pycode", "--technique", "weight-int4:group_size=33"), "group_size"),
        (("run", "--model", "pycode", "--technique", "static-batch:size"), "size"),
        (("run", "--model", "pycode", "--limit", "kl_nats<=-1"), "kl_nats"),
        (("run", "--model", "pycode", "--limit", "speed<=1"), "speed"),
        (("run", "--model", "pycode", "--priority", "beauty=1"), "beauty"),
        (("run", "--model", "pycode", "--priority", "size=0"), "--priority"),
        (("run", "--model", "pycode", "--budget", "soon"), "soon"),
        (("run", "--model", "pycode", "--preset", "hasty"), "hasty"),
        (("run", "--model", "digits-cnn", "--workload", "chat"), "sensor-frame"),
        (("run", "--model", "pycode", "--target", "stm32l4r5"), "exceed"),
        (("show", "s-none"), "s-none"),
        (("resume", "s-none"), "s-none"),
        (("cancel", "s-none"), "s-none"),
        (("compare", "t-1", "t-2"), "t-1"),
        (("report", "new", "s-none", "--title", "x"), "s-none"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    words: Sequence[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--store", "memory:"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("trimtab: ")
    assert named in lines[0]


@pytest.mark.parametrize("what", ["models", "targets", "workloads", "techniques"])
def test_lists_print_a_table_and_the_same_entries_as_json(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([what]) == 0
    table = capsys.readouterr().out
    assert cli.main([what, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len(entries) == len(table.splitlines()) - 1
    for entry in entries:
        assert (entry.get("id") or entry["name"]) in table


def test_doctor_names_every_kernel_and_why_one_does_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"linear_dense", "linear_lowbit", "linear_w8a8", "attention"} <= {
        one["op"] for one in found["kernels"]
    }
    assert all(one["runs"] or one["reason"] for one in found["kernels"])


def test_a_store_held_by_another_process_is_refused_with_its_pid(tmp_path: Path) -> None:
    path = tmp_path / "held.duckdb"
    held = open_store(str(path))
    refused = trimtab("studies", store=path)
    held.close()
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "PID" in refused.stderr
    assert trimtab("studies", store=path).returncode == 0


@pytest.mark.parametrize(("text", "wanted"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("7", 7)])
def test_budgets_are_read_with_their_units(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "-5m", "5 minutes", "0s", "1e9", "∞"])
def test_a_budget_that_is_no_time_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="--budget"):
        seconds(text)


def test_a_study_is_run_shown_compared_reported_and_exported(tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    words = ("--model", "digits-mlp", "--technique", "static-batch:size=4")
    ran = trimtab("run", *words, "--json", "--as", "Ada", store=store)
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert set(document) == {
        "study", "baseline", "frontier", "recommendation", "trials", "warnings",
        "machines",
    }  # fmt: skip
    trials = document["trials"]
    assert [trial["state"] for trial in trials] == ["done", "done"]
    for trial in trials:
        accuracy = trial["metrics"]["accuracy"]
        assert 0.9 < accuracy["value"] <= 1
        assert accuracy["low"] < accuracy["value"] < accuracy["high"]
        assert accuracy["origin"] == "measured"
        assert trial["metrics"]["usd_per_mtok"]["value"] is None
        assert trial["metrics"]["usd_per_mtok"]["origin"] == "unavailable"

    assert {document["study"]["who"], *(trial["who"] for trial in trials)} == {"Ada"}

    study_id = document["study"]["id"]
    shown = trimtab("show", study_id, "--json", store=store)
    assert json.loads(shown.stdout) == document
    assert study_id in trimtab("studies", store=store).stdout

    ids = [trial["id"] for trial in trials]
    for format_ in ("table", "json", "csv", "md"):
        compared = trimtab("compare", *ids, "--format", format_, store=store)
        assert compared.returncode == 0, compared.stderr
        assert all(one in compared.stdout for one in ids)

    made = trimtab("report", "new", study_id, "--title", "Batch 4?", store=store)
    assert made.returncode == 0, made.stderr
    report_id = made.stdout.strip()
    for format_ in ("html", "md", "csv", "json"):
        file = tmp_path / f"report.{format_}"
        wrote = trimtab(
            "report", "export", report_id, "--format", format_, "-o", str(file), store=store
        )
        assert wrote.returncode == 0, wrote.stderr
        assert "Batch 4?" in file.read_text(encoding="utf-8") or format_ == "csv"
    refused = trimtab("report", "export", report_id, "--format", "docx", "-o", "x", store=store)
    assert refused.returncode == 2
    assert "docx" in refused.stderr
