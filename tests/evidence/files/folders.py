"""R9: damaged model folders. None may give a traceback, hang, run code, or be measured wrongly.

    python -m tests.evidence folders [--count 500] [--seed 0] [--verbose]

Every kind of damage is dealt to small sound folders of every family in turn. Each case runs in a
child that is killed after 20 s. An accepted folder must give transformers' logits of the undamaged
folder, or, where an edit of the config lawfully means another model, transformers' logits of it.
Weights that are finite, of the right shape and wrong cannot be told from right ones: a changed
number or a transposed square matrix is no kind here.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.evidence.files.damage_config import CONFIG, LAWFUL
from tests.evidence.files.damage_files import INDEXES, WEIGHTS
from tests.evidence.files.damage_quantized import QUANTIZED
from tests.evidence.files.damage_text import FOLDERS, TEXT
from tests.evidence.files.sound_folders import SHARDED, SOUND, Case, make
from tests.evidence.files.sound_quantized import SOUND_QUANTIZED, make_quantized

KINDS = CONFIG | WEIGHTS | INDEXES | TEXT | FOLDERS | QUANTIZED
SOUNDS = (*SOUND, *SOUND_QUANTIZED)
# A word of codes that has other bits is another weight, which nothing can tell.
BOTH = frozenset(name for name in (WEIGHTS | TEXT | FOLDERS) if not name.startswith("value"))
LIMIT_S = 20.0
MEMORY = 12 << 30
NOBODY = 65534
LAWFUL_TEXT = ("any value", "a field left out", "merges nonsense")
SAMPLE = "def main(args):\n    return sorted(args)[0]  # 19 letters"
WATCHED = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.fork",
           "socket.connect", "socket.getaddrinfo")  # fmt: skip


@dataclass
class Verdict:
    """What came of one case; `wrong` is empty when all is well."""

    kind: str
    sound: str
    outcome: str
    said: str = ""
    wrong: str = ""
    seconds: float = 0.0


class Bench:
    """Sound folders, what they must compute, and the judgement of damaged copies."""

    def __init__(self, root: Path) -> None:
        import torch
        import transformers
        from tokenizers import Tokenizer

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity(50)
        torch.set_num_threads(1)
        self.root = root
        root.chmod(0o755)
        self.mark = root / "mark"
        self.ids = torch.randint(0, 300, (2, 9), generator=torch.Generator().manual_seed(1))
        self.wanted = {}
        for name in SOUND:
            with torch.no_grad():
                self.wanted[name] = make(name, root / name)(self.ids).logits
        for name in SOUND_QUANTIZED:
            self.wanted[name] = make_quantized(name, root / name).forward(self.ids)
        made = Tokenizer.from_file(str(root / "llama" / "tokenizer.json"))
        self.text = made.encode(SAMPLE, add_special_tokens=False).ids
        self.heard: list[str] = []

    def listen(self) -> None:
        """Note every event that no loading of weights needs; it cannot be undone."""

        def hook(event: str, details: tuple[Any, ...]) -> None:
            if event in WATCHED:
                self.heard.append(f"{event}{details!r:.80}")

        sys.addaudithook(hook)

    def judge(self, number: int, kind: str, sound: str, seed: int) -> Verdict:
        """Deal `kind` to a copy of `sound` and load it."""
        from core.engine.load.load import load_folder
        from core.errors import BadInput
        from core.files.folder import check_folder

        place = self.root / f"case-{number}"
        place.mkdir()
        source = f"open({str(self.mark)!r}, 'w').write('{kind}')"
        case = Case(place / "model", sound, random.Random(seed), source)
        case.copy_from(self.root / sound)
        if kind in KINDS:
            KINDS[kind](case)
        self.heard.clear()
        began = time.monotonic()
        found = Verdict(kind, sound, "accepted")
        try:
            with as_nobody():
                found.outcome = "refused before torch"
                check_folder(case.path)
                found.outcome = "refused at loading"
                engine, tokenizer = load_folder(case.path, "fp32")
            found.outcome = "accepted"
        except BadInput as error:
            found.said = str(error)
            found.wrong = self._sentence(case, found.said)
        except BaseException as error:
            found.wrong = f"{type(error).__name__}: {error!s:.300}"
        else:
            found.wrong = self._computed(case, kind, engine) or self._tokens(kind, tokenizer)
        found.seconds = time.monotonic() - began
        if self.heard or self.mark.exists():
            found.wrong += f" code ran: {[*self.heard, self.mark.exists()]}"
            self.mark.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            case.path.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)
        return found

    def _sentence(self, case: Case, said: str) -> str:
        """Why the sentence is no good; empty when it is."""
        if not said.isprintable() or len(said) > 2000 or not said.endswith("."):
            return f"no plain sentence: {said!r}"
        from core.errors import one_line

        files = ["config.json", "tokenizer.json", ".safetensors", "_config.json", ".bin", ".pt"]
        if not any(one in said for one in (*files, ".pkl", one_line(case.path.name))):
            return f"no file is named: {said}"
        fields = [note for note in case.note if case.sound and note]
        if fields and not any(one_line(note) in said for note in fields) and not _specific(said):
            return f"neither of {fields} is named: {said}"
        return ""

    def _computed(self, case: Case, kind: str, engine: Any) -> str:
        try:
            logits = engine.forward(self.ids)
        except BaseException as error:
            return f"accepted, then {type(error).__name__}: {error!s:.200}"
        if _alike(logits, self.wanted[case.sound]):
            return ""
        if kind not in LAWFUL:
            return "accepted, but the logits are others"
        other = self._transformers(case.path)
        if isinstance(other, str):
            return f"accepted with other logits, which transformers does not load ({other})"
        return "" if _alike(logits, other) else "accepted, but transformers computes other logits"

    def _transformers(self, path: Path) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, trust_remote_code=False, output_loading_info=True,
                local_files_only=True, use_safetensors=True,
            )  # fmt: skip
            if any(report.get(part) for part in ("missing_keys", "unexpected_keys")):
                return "tensors are missing or too many"
            with torch.no_grad():
                return model(self.ids, return_dict=True).logits
        except Exception as error:
            return f"{type(error).__name__}: {error!s:.200}"

    def _tokens(self, kind: str, tokenizer: Any) -> str:
        if tokenizer is None:
            return "" if kind == "tokenizer missing" else "the tokenizer is gone"
        try:
            ids = tokenizer.encode(SAMPLE, add_special_tokens=False).ids
        except BaseException as error:
            return f"the tokenizer was accepted, then {type(error).__name__}: {error!s:.200}"
        if ids == self.text or (kind in LAWFUL_TEXT and max(ids) < 300):
            return ""
        return f"the tokenizer was accepted, but gives {len(ids)} other tokens"


def _specific(said: str) -> bool:
    """A consequence was named instead: a tensor, a layer, another field, a file that is gone."""
    words = ("the tensor ", "layer ", "config.json: ", "config.json's", " is missing.")
    return any(word in said for word in words)


def _alike(logits: Any, wanted: Any) -> bool:
    if logits.shape != wanted.shape:
        return False
    return bool((logits - wanted).abs().max() <= 1e-4 * wanted.abs().max())


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything: a user who may not is stood in for, where that is possible."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def deal(count: int, seed: int) -> list[tuple[int, str, str, int]]:
    """Every sound folder untouched, then `count` cases: kinds in turn, families by lot."""
    rng = random.Random(seed)
    cases = [("untouched", name) for name in SOUNDS]
    names = list(KINDS)
    while len(cases) < count + len(SOUNDS):
        rng.shuffle(names)
        for kind in names:
            cases.append((kind, rng.choice(_fitting(kind))))
    cases = cases[: count + len(SOUNDS)]
    return [(i, kind, sound, seed * 1_000_003 + i) for i, (kind, sound) in enumerate(cases)]


def _fitting(kind: str) -> tuple[str, ...]:
    """The sound folders that a kind of damage is for."""
    if kind in INDEXES:
        return SHARDED
    if kind in QUANTIZED:
        return tuple(SOUND_QUANTIZED)
    return SOUNDS if kind in BOTH else tuple(SOUND)


def _serve(bench: Bench, pipe: Any) -> None:
    """The child: judge what comes through the pipe until nothing comes."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    bench.listen()
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(bench.judge(*pipe.recv()))


def run(count: int, seed: int = 0) -> list[Verdict]:
    """Judge the sound folders and `count` damaged ones."""
    fork = multiprocessing.get_context("fork")
    root = Path(tempfile.mkdtemp(prefix="folders-"))
    verdicts: list[Verdict] = []
    child = None
    try:
        bench = Bench(root)
        for case in deal(count, seed):
            if child is None:
                ours, theirs = fork.Pipe()
                child = fork.Process(target=_serve, args=(bench, theirs), daemon=True)
                child.start()
                theirs.close()
            ours.send(case)
            try:
                if ours.poll(LIMIT_S):
                    verdicts.append(ours.recv())
                    continue
                wrong = f"no answer within {LIMIT_S:g} s"
            except EOFError:
                wrong = "the process died"
            child.kill()
            child.join()
            verdicts.append(Verdict(case[1], case[2], "lost", "", wrong, LIMIT_S))
            child = None
        return verdicts
    finally:
        if child is not None:
            child.kill()
            child.join()
        shutil.rmtree(root, ignore_errors=True)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")


def main(options: argparse.Namespace) -> int:
    """Print what went wrong, and the figure last."""
    verdicts = run(options.count, options.seed)
    for one in verdicts:
        if one.wrong or options.verbose:
            print(f"{one.kind} [{one.sound}]: {one.outcome}: {one.wrong or one.said or 'same'}")
    refused = [one for one in verdicts if one.kind == "untouched" and one.outcome != "accepted"]
    damaged = [one for one in verdicts if one.kind != "untouched"]
    outcomes = Counter(one.outcome for one in damaged)
    wrong = [one for one in verdicts if one.wrong]
    slowest = max(verdicts, key=lambda one: one.seconds)
    print(
        f"{len(damaged)} damaged folders of {len({one.kind for one in damaged})} kinds: "
        f"{outcomes['refused before torch']} refused before torch, "
        f"{outcomes['refused at loading']} refused at loading, {outcomes['accepted']} harmless, "
        f"{len(wrong)} wrong (traceback, hang, code run, wrong logits or a poor sentence), "
        f"{len(refused)} of {len(SOUNDS)} sound folders refused, slowest {slowest.seconds:.1f} s "
        f"({slowest.kind})."
    )
    return 1 if wrong or refused else 0
