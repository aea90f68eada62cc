"""`trimtab apply` from the command line, and running what it wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import apply as cli_apply
from app.cli.main import main

# Writes one file, says so and waits for the signal in the middle of the work.
SLOW = """
import signal, sys
from app.cli.main import main
from core.artefacts import save

def write_file(path, pieces):
    path.write_bytes(b"half")
    print("writing", flush=True)
    signal.pause()

save.write_file = write_file
# As on a terminal; what runs in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_half_written_folder(number: signal.Signals, tmp_path: Path) -> None:
    words = ["apply", "--model", "digits-mlp", "--technique", "rtn:bits=8"]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *words, "-o", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "writing\n"
            (stage,) = tmp_path.iterdir()
            assert stage.name.endswith(".part")
            child.send_signal(number)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 130
    assert said.splitlines()[-1] == "trimtab: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["apply", "--model", "digits-mlp", "--technique", "rtn:bits=8,group_size=0"]
    assert main([*words, "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert f"{out}: rtn(" in said.out
    assert "3 int8" in said.out
    assert f"trimtab run --model {out}" in said.out
    names = sorted(path.name for path in out.iterdir())
    assert names == ["config.json", "model.safetensors", "trimtab.json"]
    store = f"duckdb:///{tmp_path}/store.duckdb"
    run = ["run", "--model", str(out), "--technique", "static-batch:size=2", "--preset", "quick"]
    assert main([*run, "--store", store, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    baseline = next(one for one in document["trials"] if one["id"] == document["baseline"])
    assert baseline["state"] == "done"
    assert "linear_lowbit" in {one["op"] for one in baseline["kernels"]}
    weights = (out / "model.safetensors").stat().st_size
    assert baseline["metrics"]["disk_bytes"]["value"] == weights + sum(
        path.stat().st_size for path in out.glob("*.json") if path.name != "trimtab.json"
    )


def test_the_document_is_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["apply", "--model", "pycode-small", "--technique", "weight-int8", "--json"]
    assert main([*words, "--format", "gguf", "-o", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folder"] == str(out)
    assert document["format"] == "gguf"
    assert document["matrices"] == {"int8": 17}
    assert document["sizes"]["weights"] == (out / "model.gguf").stat().st_size


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--technique", "static-batch:size=4"], "there is nothing to write"),
        (["--technique", "magic"], "unknown technique 'magic'"),
        (["--technique", "weight-int8", "--format", "zip"], "--format 'zip' is not one of"),
        (["--technique", "rtn:bits=3", "--format", "awq"], "formats that hold it: trimtab, gptq"),
        ([], "no technique is given"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", "--model", "pycode-small", *words, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_cannot_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIMTAB_KERNEL", "linear_lowbit=torch-int4pack")
    words = ["apply", "--model", "pycode-small", "--technique", "nf4"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "torch-int4pack takes int4" in said
    assert "TRIMTAB_KERNEL=linear_lowbit=torch-int4pack asks for it" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_slower_kernels_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_apply, "lost", lambda device: {"no room": ["swiglu", "rms_norm"]})
    words = ["apply", "--model", "digits-mlp", "--technique", "rtn:bits=8", "--json"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    line = "our kernels of swiglu, rms_norm do not run here, slower ones do: no room"
    assert said.err.splitlines().count(line) == 1
    assert json.loads(said.out)["format"] == "trimtab"


def test_a_folder_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    words = ["apply", "--model", "pycode-small", "--technique", "weight-int8"]
    assert main([*words, "-o", str(tmp_path)]) == 2
    assert "the folder is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
