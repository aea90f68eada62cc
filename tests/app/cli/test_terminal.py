"""Every terminal gets its text, and every name of a file is found, whatever the locale."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import terminal
from core.catalogue.models import ZOO

# A terminal's encoding, or a locale that is no UTF-8 with Python's own ways around it switched off.
PLACES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "LANG": "C"},
    "C-bare": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
NAME = "Modèle 模型 ½"


def trimtab(place: str, *words: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the command line with `place` as its environment; `words` may have any sign."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PYTHON"))
    }
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "XDG_DATA_HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", "import sys; from app.cli.main import main; sys.exit(main())",
         *map(os.fsencode, words)],
        capture_output=True, check=False, env=clean | paths | PLACES[place], cwd=folder,
    )  # fmt: skip


def encoding(place: str) -> str:
    return {"C": "utf-8", "C-bare": "ascii"}.get(place, place)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The bundled small model in a folder whose name few encodings hold."""
    folder = tmp_path / NAME
    folder.mkdir()
    for file in (ZOO / "pycode-small").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("place", ["ascii", "latin-1", "C-bare"])
def test_tables_help_and_errors_are_written(place: str, tmp_path: Path) -> None:
    for words in (["techniques"], ["run", "--help"]):
        done = trimtab(place, *words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        assert done.stdout.decode(encoding(place))
    missing = trimtab(place, "show", NAME, folder=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr.decode(encoding(place)).startswith("trimtab: there is no study 'Mod")
    listed = trimtab(place, "targets", "--json", folder=tmp_path)
    assert listed.stdout.isascii()
    assert json.loads(listed.stdout)


@pytest.mark.parametrize("place", ["C-bare"])
def test_files_of_any_name_are_read_and_written(place: str, tmp_path: Path, model: Path) -> None:
    store = tmp_path / f"{NAME}.duckdb"
    done = trimtab(
        place, "apply", "--model", str(model), "--technique", "weight-int8", "-o", f"{NAME} 8",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{NAME} 8" / "model.safetensors").is_file()
    done = trimtab(place, "studies", "--store", str(store), "--json", folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr
    assert store.is_file()


def test_what_an_encoding_has_stays_and_the_rest_is_said_otherwise() -> None:
    text = "KL ≤ 0.1 · 3 µs → é ² 漢 \udcfc"
    wanted = {
        "ascii": "KL <= 0.1 - 3 us -> e 2 \\u6f22 \\udcfc",
        "latin-1": "KL <= 0.1 · 3 µs -> é ² \\u6f22 \\udcfc",
        "utf-8": "KL ≤ 0.1 · 3 µs → é ² 漢 \\udcfc",
    }
    terminal.take_any_sign()
    for name, said in wanted.items():
        stream = io.TextIOWrapper(io.BytesIO(), encoding=name, errors=terminal.HANDLER)
        stream.write(text)
        stream.seek(0)
        assert stream.buffer.read().decode(name) == said
