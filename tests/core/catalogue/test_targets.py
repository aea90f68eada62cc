"""The catalogue of targets: every number sourced, hostile files refused, this machine detected."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from core.catalogue import targets
from core.errors import BadInput
from core.journal import codec
from core.machine import calibrate, environment
from core.machine import targets as chosen
from core.machine.calibrate import Calibration

GOOD = """
dated = "2026-11-21"
[sources]
sheet = "a datasheet"
[[target]]
id = "card"
title = "A card"
kind = "cuda"
place = "cloud"
memory_bytes = { value = 24e9, source = "sheet" }
bandwidth = { value = 300e9, source = "sheet", note = "peak" }
[target.peaks]
bf16 = { value = 121e12, source = "sheet" }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "targets.toml"
    path.write_text(text)
    return path


def test_the_catalogue_has_at_least_fourteen_devices_of_every_place() -> None:
    entries = targets.entries()
    assert len(entries) >= 14
    assert {entry.target.place for entry in entries} == set(targets.PLACES)


def test_every_number_has_a_source_and_is_positive() -> None:
    for entry in targets.entries():
        assert entry.facts, entry.target.id
        for name, fact in entry.facts:
            assert len(fact.source) > 20, (entry.target.id, name)
            values = fact.value if isinstance(fact.value, tuple) else (fact.value,)
            assert all(value > 0 for value in values), (entry.target.id, name)


def test_every_source_is_used_and_says_when_it_was_read_or_that_it_was_not_checked() -> None:
    document = tomllib.loads(targets.FILE.read_text())
    text = targets.FILE.read_text()
    for name, source in document["sources"].items():
        assert text.count(f'source = "{name}"') >= 1, f"{name} is not used"
        known = ("read 2026-11-21", "not re-checked", "MLPerf", "assumed", "decides", "widened")
        assert any(word in source for word in known), name


def test_prices_name_provider_and_date() -> None:
    for entry in targets.entries():
        price = entry.fact("usd_per_hour")
        if price is not None:
            assert "AWS" in price.source or "Azure" in price.source
            assert "202" in price.source


def test_a_target_carries_the_facts_it_was_read_from() -> None:
    card = chosen.resolve("h100-sxm")
    assert (card.kind, card.place, card.local) == ("cuda", "cloud", False)
    assert card.peak("bf16") == pytest.approx(989.4e12)
    assert card.peak("fp4") is None
    assert card.bandwidth == pytest.approx(3.35e12)
    assert "H100" in card.source
    assert card.dated == "2026-11-21"


def test_unknown_numbers_are_none_not_zero() -> None:
    assert chosen.resolve("b200").usd_per_hour is None
    assert chosen.resolve("apple-m4").power_w is None
    assert chosen.resolve("stm32l4r5").bandwidth is None


def test_an_unknown_id_names_the_closest_and_all() -> None:
    with pytest.raises(BadInput, match=r"did you mean 'h100-sxm'\?") as error:
        chosen.resolve("h100-sx")
    assert "local" in str(error.value)
    with pytest.raises(BadInput, match="unknown target"):
        chosen.resolve("x" * 10_000)


def test_every_target_survives_the_codec() -> None:
    for target in chosen.list_targets():
        assert codec.loads(codec.dumps(target)) == target


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (entry,) = targets.load(written(tmp_path, GOOD))
    assert entry.target.source == (
        "memory_bytes, peak_bf16: a datasheet; bandwidth: a datasheet (peak)"
    )
    assert entry.target.power_w is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("24e9", "0", r"card: memory_bytes.value must be above 0, not 0; leave an unknown"),
        ("24e9", "-1", "above 0"),
        ("24e9", "nan", "finite number"),
        ("24e9", "inf", "finite number"),
        ("24e9", "true", "finite number, not True"),
        ("24e9", '"much"', "finite number, not 'much'"),
        ('{ value = 24e9, source = "sheet" }', "24e9", "must be a table with value and source"),
        ('value = 24e9, source = "sheet"', "value = 24e9", "source is missing"),
        ('value = 24e9, source = "sheet"', 'value = 24e9, source = "blog"', "'blog' is not in"),
        ('kind = "cuda"', 'kind = "tpu"', "must be one of cuda, cpu, mcu"),
        ('kind = "cuda"', 'kind = "mcu"', "flash_bytes is missing"),
        ('place = "cloud"', 'place = "moon"', "must be one of cloud"),
        ('title = "A card"', "title = 3", "title is missing or not a text"),
        ("bf16 =", "bf17 =", "unknown field 'bf17'"),
        ("bandwidth =", "bandwith =", "unknown field 'bandwith'"),
        ('id = "card"', 'id = "local"', "means this machine"),
        ('id = "card"', "", "number 1 has no id"),
        ("[[target]]", "[target]", "needs a list of"),
        ('dated = "2026-11-21"', "", "dated is missing"),
        ('sheet = "a datasheet"', "sheet = 3", "must map short names to texts"),
        ("[sources]", "[sources", "is not valid TOML"),
    ],
)
def test_a_damaged_file_is_refused_with_a_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in GOOD
    with pytest.raises(BadInput, match=sentence):
        targets.load(written(tmp_path, GOOD.replace(old, new, 1)))


def test_an_id_given_twice_is_refused(tmp_path: Path) -> None:
    half = GOOD[GOOD.index("[[target]]") :]
    with pytest.raises(BadInput, match="'card' is given twice"):
        targets.load(written(tmp_path, GOOD + half))


def test_a_missing_a_binary_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        targets.load(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not valid TOML"):
        targets.load(binary)
    huge = tmp_path / "huge.toml"
    huge.write_text("# " + "x" * 1_000_001)
    with pytest.raises(BadInput, match="larger than"):
        targets.load(huge)
    deep = tmp_path / "deep.toml"
    deep.write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(BadInput, match="not valid TOML"):
        targets.load(deep)


def test_this_machine_is_detected_and_unknown_until_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = chosen.resolve("local")
    assert here.local
    assert here.place == "local"
    assert here.memory_bytes > 100_000_000
    assert here.bandwidth is None
    assert here.peaks == ()
    assert "doctor --calibrate" in here.source
    assert chosen.list_targets()[0].id == "local"


def test_a_stored_calibration_of_this_machine_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key, _ = environment.environment()
    calibrate.store(Calibration(key, "2026-11-21T10:00:00.000", "cpu", 2e10, (("bf16", 1e12),)))
    here = chosen.resolve("local")
    assert here.bandwidth == 2e10
    assert here.peak("bf16") == 1e12
    assert here.dated == "2026-11-21"


def test_a_gpu_that_torch_can_use_becomes_the_local_target(monkeypatch: pytest.MonkeyPatch) -> None:
    key, facts = environment.environment()
    card = {"name": "NVIDIA L4", "memory_bytes": 23_034 * 1024 * 1024}
    facts = {**facts, "gpus": [card], "versions": {"torch": "2.13.0"}}
    monkeypatch.setattr(environment, "environment", lambda: (key, facts))
    here = chosen.resolve("local")
    # Less what CUDA takes before the first tensor.
    assert (here.kind, here.memory_bytes) == ("cuda", 22_010 * 1024 * 1024)
    facts["versions"] = {"torch": "2.13.0+cpu"}
    assert chosen.resolve("local").kind == "cpu"


def test_listing_targets_imports_no_torch() -> None:
    code = (
        "import sys; from core.catalogue import workloads; from core.machine import targets;"
        "targets.list_targets();"
        "workloads.list_workloads(); import core.predict, core.verdict.recommend;"
        "print([name for name in ('torch', 'triton', 'transformers') if name in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"
