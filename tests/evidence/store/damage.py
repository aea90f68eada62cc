"""R2: damaged stores. Every one is opened as the program opens it, and must answer as before, or
say which study or report lost what; an answer that was never measured is worse than none.

    python -m tests.evidence damage [--count 500] [--seed 1]

A store of three studies and a report, closed in order or killed with a full log, is damaged in one
of the ways of DAMAGES, sometimes in its journals too; then it is opened, compared, closed and
opened once more.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.errors import TrimtabError
from core.report import Report
from core.study import Study
from store.copies.verify import differences
from store.interface import Store
from tests.store import lives
from tests.store.conftest import Make

NAME = "store.duckdb"
Answers = dict[str, Study | Report]


def flip(path: Path, chance: random.Random, count: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(count):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def lines(path: Path, change: Callable[[list[bytes]], object]) -> None:
    found = path.read_bytes().split(b"\n")[:-1]
    change(found)
    path.write_bytes(b"".join(line + b"\n" for line in found))


def a_journal(file: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(lives.folder_of(file).rglob("*.jsonl")))


def log(file: Path) -> Path:
    return file.with_name(file.name + ".wal")


def swap(found: list[bytes], chance: random.Random) -> None:
    one, other = chance.randrange(len(found)), chance.randrange(len(found))
    found[one], found[other] = found[other], found[one]


def edit(found: list[bytes], chance: random.Random) -> None:
    """Somebody makes a number better, or a word other."""
    place = chance.randrange(len(found))
    for old, new in ((b"0.25", b"0.05"), (b'"attempt":1', b'"attempt":2'), (b'"s-', b'"S-')):
        if old in found[place]:
            found[place] = found[place].replace(old, new)
            return


# Each takes the store's file and chance.
LOGS: dict[str, Callable[[Path, random.Random], object]] = {
    "log cut": lambda file, chance: cut(log(file), chance),
    "log flipped": lambda file, chance: flip(log(file), chance),
    "log missing": lambda file, chance: log(file).unlink(),
    "log emptied": lambda file, chance: log(file).write_bytes(b""),
    "log garbage": lambda file, chance: log(file).write_bytes(chance.randbytes(5000)),
}
FILES: dict[str, Callable[[Path, random.Random], object]] = {
    "file flipped": lambda file, chance: flip(file, chance, chance.choice((1, 1, 3, 50))),
    "file cut": cut,
    "file missing": lambda file, chance: file.unlink(),
    "file emptied": lambda file, chance: file.write_bytes(b""),
    "file garbage": lambda file, chance: file.write_bytes(chance.randbytes(20000)),
    "file of SQLite": lambda file, chance: file.write_bytes(b"SQLite format 3\0" + bytes(4080)),
    "file of text": lambda file, chance: file.write_bytes(b"dear diary\n" * 300),
    "file of another store": lambda file, chance: shutil.copy(file.with_name("other"), file),
    "file of an older copy": lambda file, chance: shutil.copy(file.with_name("older"), file),
    "file half zeros": lambda file, chance: file.write_bytes(
        (data := file.read_bytes())[: len(data) // 2] + bytes(len(data) // 2)
    ),
}
JOURNALS: dict[str, Callable[[Path, random.Random], object]] = {
    "journal flipped": lambda file, chance: flip(a_journal(file, chance), chance),
    "journal flipped often": lambda file, chance: flip(a_journal(file, chance), chance, 20),
    "journal cut": lambda file, chance: cut(a_journal(file, chance), chance),
    "journal's last lines cut": lambda file, chance: lines(
        a_journal(file, chance), lambda found: found.__delitem__(slice(-chance.randint(1, 4), None))
    ),
    "journal line removed": lambda file, chance: lines(
        a_journal(file, chance), lambda found: found.pop(chance.randrange(len(found)))
    ),
    "journal lines swapped": lambda file, chance: lines(
        a_journal(file, chance), lambda found: swap(found, chance)
    ),
    "journal line repeated": lambda file, chance: lines(
        a_journal(file, chance), lambda found: found.append(chance.choice(found))
    ),
    "journal line edited": lambda file, chance: lines(
        a_journal(file, chance), lambda found: edit(found, chance)
    ),
    "journal removed": lambda file, chance: a_journal(file, chance).unlink(),
    "journal replaced": lambda file, chance: shutil.copy(
        a_journal(file, chance), a_journal(file, chance).with_name("t-strange-1.jsonl")
    ),
    "study's folder removed": lambda file, chance: shutil.rmtree(
        lives.folder_of(file) / chance.choice(("s-1", "s-2", "s-3"))
    ),
}
DISK_FULL = "disk full"
DAMAGES = (*LOGS, *FILES, *JOURNALS, DISK_FULL)


@dataclass
class Tally:
    """What came of the damaged stores."""

    cases: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """The figure."""
        count, ends = sum(self.cases.values()), self.ends
        if self.faults:
            return f"R2 is missed: {len(self.faults)} of {count}, the first: {self.faults[0]}"
        return (
            f"R2: {count} damaged stores of {len(self.cases)} kinds: {ends['right']} answered as "
            f"before ({ends['told']} of them said what had been damaged), {ends['named']} named "
            f"every loss, {ends['refused']} were refused in a sentence and left as they were; "
            "0 wrong answers, 0 silent losses"
        )


def answers(store: Store) -> Answers:
    """All studies and reports as they are shown; a study that cannot be shown is not among them."""
    found: Answers = {}
    for summary in store.studies():
        with contextlib.suppress(TrimtabError):
            found[summary.id] = store.study(summary.id)
    for one in store.reports():
        found[one.id] = one
    return found


def prepare(folder: Path) -> tuple[Answers, Any]:
    """Two stores of the same content, `closed` and `killed`; what they answer, what made them."""
    make = Make()
    closed, killed = folder / "closed" / NAME, folder / "killed" / NAME
    for file, ids in ((closed, ("s-1", "s-2")), (closed.with_name("other"), ("s-9",))):
        file.parent.mkdir(exist_ok=True)
        for study_id in ids:
            lives.write(file, make.whole(study_id)[1])
        store, _ = lives.opened(file)
        if file is closed:
            lives.report(store, "s-1")
        lives.close(store, file)
    shutil.copy(closed, closed.with_name("older"))
    store, _ = lives.opened(closed)
    lives.write(closed, make.whole("s-3")[1])
    lives.check_in(store, closed)
    lives.report(store, "s-3", "Later")
    shutil.copytree(closed.parent, killed.parent)
    truth = answers(store)
    lives.close(store, closed)
    return truth, make


def judge(truth: Answers, found: Answers, said: tuple[str, ...]) -> str:
    """`right`, `named`, or what is wrong."""
    safe = ("; the store still holds what was said there", "; nothing is lost")
    losses = [one for one in said if not one.endswith(safe)]
    silent, wrong = [], []
    for name, was in truth.items():
        now = found.get(name)
        if now == was:
            continue
        about = name if isinstance(was, Study) else "reports.jsonl"
        if not any(about in one for one in losses):
            silent.append(name)
        if isinstance(now, Study) and isinstance(was, Study) and not _part_of(now, was):
            wrong.append(name)
        if isinstance(now, Report):
            wrong.append(name)
    wrong += [name for name in found if name not in truth and name != "s-9"]
    if wrong:
        return f"wrong answers of {', '.join(wrong)}"
    if silent:
        return f"a silent loss of {', '.join(silent)}"
    return "right" if all(found.get(name) == was for name, was in truth.items()) else "named"


def _part_of(now: Study, was: Study) -> bool:
    """Whether `now` says nothing that `was` did not say; a state may be an earlier one."""
    if replace(now, trials=(), state=was.state, reason=was.reason) != was.with_trials(()):
        return False
    for trial in now.trials:
        before = was.trial(trial.id)
        if before is None or trial.plan != before.plan:
            return False
        for name in ("measurements", "kernels", "notes"):
            if not set(getattr(trial, name)) <= set(getattr(before, name)):
                return False
    return True


def one_case(folder: Path, kind: str, chance: random.Random, truth: Answers) -> tuple[str, bool]:
    """Damage a copy, open it twice; how it ended and whether anything was said."""
    both = kind not in LOGS and chance.random() < 0.5
    origin = folder / ("killed" if kind in LOGS or both else "closed")
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(origin, place)
    file = place / NAME
    (LOGS | FILES | JOURNALS)[kind](file, chance)
    if kind in FILES and chance.random() < 0.4:
        JOURNALS[chance.choice(tuple(JOURNALS))](file, chance)
    before = file.read_bytes() if file.exists() else b""
    try:
        store, said = lives.opened(file)
    except TrimtabError:
        return ("refused" if file.read_bytes() == before else "a refused file was changed"), True
    try:
        found = answers(store)
        agrees = not differences(store, lives.folder_of(file)).sentences
    finally:
        lives.close(store, file)
    end = judge(truth, found, said)
    if end == "right" and not agrees and not said:
        end = "the store differs from its journals without a word"
    store, again = lives.opened(file)
    if (answers(store), again) != (found, ()):
        end = f"it changed at the next opening ({again[0] if again else 'other answers'})"
    lives.close(store, file)
    return end, bool(said)


def full_disk(folder: Path, chance: random.Random, truth: Answers, make: Any) -> str:
    """The disk takes only some bytes more while a study is written; then there is room again."""
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "closed", place)
    file = place / NAME
    store, _ = lives.opened(file)
    _, told = make.whole("s-4")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = 0
    # Journals have some thousand bytes, the log some ten thousand, the file a million.
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(10 ** chance.uniform(1, 6)), hard))
    try:
        for one in told:
            lives.write(file, [one])
            kept += 1
            lives.check_in(store, file)
    except TrimtabError as error:
        if "\n" in str(error):
            return f"more than a sentence: {error}"
    finally:
        with contextlib.suppress(TrimtabError):
            store.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store, said = lives.opened(file)
    found = answers(store)
    known = store.known([one.id for one in told])
    agrees = not differences(store, lives.folder_of(file)).sentences
    lives.close(store, file)
    acknowledged = {one.id for one in told[:kept] if one.kind != "progress"}
    if not acknowledged <= known or not agrees:
        return "an acknowledged event was lost"
    found.pop("s-4", None)
    return judge(truth, found, said)


def damage_often(folder: Path, count: int, seed: int) -> Tally:
    """Open `count` damaged stores, each kind as often as any other."""
    tally = Tally()
    truth, make = prepare(folder)
    for number in range(count):
        chance = random.Random(f"{seed}-{number}")
        kind = DAMAGES[number % len(DAMAGES)]
        told = False
        try:
            if kind == DISK_FULL:
                end = full_disk(folder, chance, truth, make)
            else:
                end, told = one_case(folder, kind, chance, truth)
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        tally.cases[kind] += 1
        tally.ends[end] += 1
        tally.ends["told"] += end == "right" and told
        if end not in ("right", "named", "refused"):
            tally.faults.append(f"number {number}, {kind}: {end}")
            print(tally.faults[-1], file=sys.stderr)
        if number % 50 == 49:
            print(f"{number + 1} stores", file=sys.stderr)
    return tally


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)


def main(options: argparse.Namespace) -> int:
    """Damage `--count` stores; 1 when an answer was wrong or a loss was silent."""
    with tempfile.TemporaryDirectory(prefix="trimtab-damage-") as folder:
        tally = damage_often(Path(folder), options.count, options.seed)
    print(tally.sentence())
    return 1 if tally.faults else 0
