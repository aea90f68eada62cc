"""A store beside its journals: whatever is damaged, the answers are right or the loss is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from core import disk
from core.errors import StoreDamaged, StoreError
from core.study import Study
from store import open_store
from store.copies.verify import differences
from store.health.losses import HELD, LOST, told
from store.health.recovery import SEAL, open_checked, set_aside
from tests.store import lives
from tests.store.conftest import Make

IDS = ("s-1", "s-2")
ENDS = {"s-1": "s-1-t0-1.jsonl", "s-2": "s-2-t1-1.jsonl"}


@pytest.fixture(scope="session")
def origin(tmp_path_factory, empty_store: Path) -> tuple[Path, dict[str, Study]]:
    """A closed store of two studies and a report with all journals, and what it answers."""
    file = tmp_path_factory.mktemp("origin") / "trimtab.duckdb"
    shutil.copy(empty_store, file)
    make = Make()
    for study_id in IDS:
        lives.write(file, make.whole(study_id)[1])
    store, notices = lives.opened(file)
    assert notices == ()
    lives.report(store, "s-1")
    found = {one.id: store.study(one.id) for one in store.studies()}
    lives.close(store, file)
    return file, found


@pytest.fixture
def home(origin, tmp_path: Path) -> Path:
    """A copy to damage; the times of its files are those that the marks and the seal know."""
    shutil.copytree(origin[0].parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / origin[0].name


@pytest.fixture
def truth(origin) -> dict[str, Study]:
    return origin[1]


def answers(file: Path) -> tuple[dict[str, Study], tuple[str, ...]]:
    """What the store says of every study, and what was told at opening."""
    store, notices = lives.opened(file)
    found = {one.id: store.study(one.id) for one in store.studies()}
    assert [one.title for one in store.reports()] == ["Choice"]
    lives.close(store, file)
    return found, notices


def journal(file: Path, name: str) -> Path:
    return file.with_name(file.name + ".studies") / name


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def rewrite(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def test_an_undamaged_store_has_nothing_to_say_and_agrees_with_its_journals(home, truth):
    assert set(truth) == set(IDS)
    store, notices = open_checked(str(home), lives.folder_of(home), every=True)
    found = differences(store, lives.folder_of(home))
    store.close()
    assert (notices, found.studies, found.sentences) == ((), 2, ())


def test_journals_that_did_not_change_are_not_read_again(home, truth, monkeypatch):
    monkeypatch.setattr(
        "store.health.check.examine", lambda *given: pytest.fail("a journal was read")
    )
    monkeypatch.setattr("store.health.marks.scan", lambda *given: pytest.fail("the store was read"))
    assert answers(home) == (truth, ())


def test_what_was_journalled_after_the_store_was_closed_is_read_in(home, make, truth):
    lives.write(home, make.whole("s-3")[1])
    found, notices = answers(home)
    assert set(found) == {*IDS, "s-3"}
    assert notices == ()


def test_a_store_that_was_killed_is_read_once_and_a_closed_one_is_not(home, monkeypatch):
    scans = []
    monkeypatch.setattr("store.health.marks.scan", lambda connection: scans.append(1))
    store, _ = lives.opened(home)
    assert (scans, (lives.folder_of(home) / SEAL).exists()) == ([], False)
    store.close()
    store, _ = lives.opened(home)
    lives.close(store, home)
    assert scans == [1]


@pytest.mark.parametrize("spoil", ["flip", "cut", "other", "sqlite"])
def test_a_spoilt_file_is_moved_aside_and_made_again(home, truth, spoil):
    data = home.read_bytes()
    spoilt = {
        "flip": bytes(255 - byte for byte in data[:20000]) + data[20000:],
        "cut": data[: len(data) // 2],
        "other": b"dear diary\n" * 500,
        "sqlite": b"SQLite format 3\0" + bytes(4080),
    }[spoil]
    home.write_bytes(spoilt)

    found, notices = answers(home)

    assert found == truth
    aside = home.with_name(home.name + ".damaged-1")
    assert aside.read_bytes() == spoilt
    assert notices == (
        f"the store {home} could not be read and was moved to {aside.name}; "
        "a new one was made from the journals",
    )
    assert answers(home) == (truth, ())
    assert told(lives.folder_of(home)) == list(notices)


def test_a_block_that_is_damaged_behind_a_whole_head_is_found_at_opening(home, truth):
    data = bytearray(home.read_bytes())
    # Every data block but the heads: what is met only when a table is read.
    for place in range(12288 + 1000, len(data), 262144):
        data[place] ^= 1
    home.write_bytes(data)
    found, notices = answers(home)
    assert found == truth
    assert "could not be read and was moved to" in notices[0]


def test_a_spoilt_file_without_journals_is_refused_and_left(home, truth):
    home.write_bytes(b"dear diary\n" * 500)
    shutil.rmtree(lives.folder_of(home))
    with pytest.raises(StoreDamaged, match="was left as it is"):
        lives.opened(home)
    assert home.read_bytes().startswith(b"dear diary")


@pytest.mark.parametrize("spoil", ["remove", "empty"])
def test_a_lost_file_is_made_again(home, truth, spoil):
    if spoil == "remove":
        home.unlink()
    else:
        home.write_bytes(b"")
    found, notices = answers(home)
    assert found == truth
    assert notices[0].startswith(f"the store {home} was missing; ")
    assert "events were read from its journals" in notices[0]


def live_log(home: Path, make, tmp_path: Path) -> Path:
    """A copy of the store as a kill leaves it: the log not yet folded into the file."""
    store, _ = lives.opened(home)
    lives.write(home, make.whole("s-3")[1])
    lives.check_in(store, home)
    killed = tmp_path / "killed" / home.name
    killed.parent.mkdir()
    for path in (home, home.with_name(home.name + ".wal")):
        shutil.copy2(path, killed.with_name(path.name))
    shutil.copytree(lives.folder_of(home), lives.folder_of(killed))
    lives.close(store, home)
    return killed


@pytest.mark.parametrize("spoil", ["whole", "missing", "empty", "garbage", "cut", "flip", "tail"])
def test_a_damaged_log_costs_nothing(home, make, tmp_path, spoil):
    killed = live_log(home, make, tmp_path)
    truth = answers(home)[0]
    log = killed.with_name(killed.name + ".wal")
    data = bytearray(log.read_bytes())
    assert len(data) > 10_000
    if spoil == "missing":
        log.unlink()
    elif spoil == "flip":
        data[len(data) // 2] ^= 4
    elif spoil == "tail":
        data[-30] ^= 1
    if spoil != "missing":
        kept = {"empty": b"", "garbage": b"garbage" * 99, "cut": data[: len(data) // 3]}
        log.write_bytes(kept.get(spoil, data))

    found, notices = answers(killed)

    assert found == truth
    for sentence in notices:
        assert "was moved to" in sentence
    assert bool(notices) >= (spoil == "flip")
    assert differences_of(killed) == ()


def differences_of(file: Path) -> tuple[str, ...]:
    store, _ = lives.opened(file)
    found = differences(store, lives.folder_of(file)).sentences
    lives.close(store, file)
    return found


def test_a_changed_line_is_named_and_the_store_still_has_it(home, truth):
    path = journal(home, "s-1/s-1-t0-1.jsonl")
    lines = lines_of(path)
    lines[2] = lines[2].replace(b'"ttft_s"', b'"tpot_s"')
    rewrite(path, lines)

    found, notices = answers(home)

    assert found == truth
    assert notices == (
        "journal s-1/s-1-t0-1.jsonl, line 3 (measurement tpot_s of trial s-1-t0) was changed or "
        f"cut: its hash is not that of its words; {HELD}",
    )
    assert answers(home) == (truth, ()), "a loss is told once"

    home.unlink()
    later, notices = answers(home)
    assert later["s-2"] == truth["s-2"]
    metrics = [one.metric for one in later["s-1"].trials[0].measurements]
    assert metrics == [one.metric for one in truth["s-1"].trials[0].measurements][1:]
    assert any(one.endswith(LOST) and "line 3 (measurement" in one for one in notices)


def test_a_cut_journal_is_named_although_its_chain_is_whole(home, truth):
    path = journal(home, "s-1/s-1-t0-1.jsonl")
    rewrite(path, lines_of(path)[:-4])
    found, notices = answers(home)
    assert found == truth
    assert notices == (
        "journal s-1/s-1-t0-1.jsonl was cut: it ends after 8 of the 12 lines it had; " + HELD,
    )
    home.unlink()
    found, notices = answers(home)
    assert any("was cut: it ends after 8 of the 12 lines" in one and LOST in one for one in notices)
    assert any(
        "trial s-1-t0 of study s-1 has no end; `trimtab resume s-1`" in one for one in notices
    )


def test_a_removed_a_swapped_and_a_foreign_journal_are_named(home, truth):
    path = journal(home, "s-1/s-1-t0-1.jsonl")
    path.unlink()
    found, notices = answers(home)
    assert (found, notices) == (truth, (f"journal s-1/s-1-t0-1.jsonl is missing; {HELD}",))
    assert answers(home) == (truth, ())

    shutil.copy(journal(home, "s-2/s-2-t0-1.jsonl"), path)
    found, notices = answers(home)
    assert found == truth
    assert "journal s-1/s-1-t0-1.jsonl" in notices[0]


def test_a_store_without_its_journals_says_so_once(home, truth):
    shutil.rmtree(lives.folder_of(home))
    store, notices = lives.opened(home)
    assert {one.id: store.study(one.id) for one in store.studies()} == truth
    lives.close(store, home)
    assert notices == (
        f"journal reports.jsonl is missing; {HELD}",
        f"the journals of 2 studies s-1, s-2 are missing beside the store; {HELD}",
    )
    assert answers(home) == (truth, ())


def test_another_store_in_its_place_is_completed_from_the_journals(home, make, truth):
    other = home.with_name("other.duckdb")
    lives.write(other, make.whole("s-9")[1])
    store, _ = lives.opened(other)
    lives.close(store, other)
    shutil.copy(other, home)
    found, notices = answers(home)
    assert {name: found[name] for name in IDS} == truth
    assert notices == (f"the journals of study s-9 are missing beside the store; {HELD}",)


def test_an_older_copy_in_its_place_is_completed_from_the_journals(home, make, truth):
    old = home.read_bytes()
    lives.write(home, make.whole("s-3")[1])
    truth = answers(home)[0]
    home.write_bytes(old)
    assert answers(home) == (truth, ())


def test_a_report_survives_a_rebuild_and_is_kept_once(home, truth):
    store, _ = lives.opened(home)
    with pytest.raises(StoreError, match="saved already"):
        store.save_report(store.report("r-s-1"))
    kept = store.report("r-s-1")
    lives.close(store, home)
    assert len(lines_of(journal(home, "reports.jsonl"))) == 1
    home.unlink()
    store, _ = lives.opened(home)
    assert store.report("r-s-1") == kept
    lives.close(store, home)


def test_reports_of_an_older_version_get_a_journal(home, truth):
    store, _ = lives.opened(home)
    kept = store.report("r-s-1")
    store.close()
    journal(home, "reports.jsonl").unlink()
    with duckdb.connect(str(home)) as connection:
        connection.execute("delete from journals")
    store, _ = lives.opened(home)
    lives.close(store, home)
    home.unlink()
    store, _ = lives.opened(home)
    assert store.report("r-s-1") == kept
    lives.close(store, home)


def test_rows_that_were_changed_inside_the_file_are_found_by_the_full_check(home, truth):
    with duckdb.connect(str(home)) as connection:
        connection.execute(
            "update measurements set samples = '[7.0]' where study_id = 's-2' and n = 3"
        )
    (sentence,) = differences_of(home)
    assert sentence.startswith("study s-2 in the store is not what its journals say: `trimtab")
    moved = set_aside(str(home))
    assert moved == home.with_name(home.name + ".damaged-1")
    assert answers(home)[0] == truth
    assert differences_of(home) == ()


def test_only_a_store_in_a_file_can_be_made_again(home):
    with pytest.raises(StoreError, match="only a store in a file"):
        set_aside("memory:")


def test_a_file_that_cannot_be_moved_aside_is_a_sentence(home, truth, monkeypatch):
    home.write_bytes(b"dear diary\n" * 500)

    class Fixed(disk.System):
        def rename(self, old: Path, new: Path) -> None:
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr(disk, "system", Fixed())
    with pytest.raises(StoreError, match=r"cannot be moved to .*damaged-1 \(Read-only") as caught:
        lives.opened(home)
    assert "\n" not in str(caught.value)
    assert home.exists()


def test_a_study_whose_first_line_is_lost_is_named(home, truth):
    path = journal(home, "s-1/study.jsonl")
    lines = lines_of(path)
    rewrite(path, lines[2:])
    home.unlink()
    found, notices = answers(home)
    assert set(found) == {"s-2"}
    assert any(
        "study s-1 cannot be shown; the line that began it is lost" in one for one in notices
    )


def test_a_memory_store_beside_journals_takes_them_in(home, truth):
    store, notices = open_checked("memory:", lives.folder_of(home))
    assert {one.id: store.study(one.id) for one in store.studies()} == truth
    assert notices == ()


def test_the_store_is_opened_as_before_when_there_is_nothing(tmp_path):
    file = tmp_path / "new" / "store.duckdb"
    store, notices = lives.opened(file)
    assert (store.studies(), notices) == ((), ())
    lives.close(store, file)
    plain = open_store(str(file))
    plain.close()
