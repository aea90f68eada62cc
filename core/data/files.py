"""Reading the user's own data: what is checked before a study starts, and the promise that the same
bytes are measured.

What may stand in a file is core.data.parsing's; nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from core.data.parsing import Content, parse
from core.dataset import Dataset
from core.errors import BadInput
from core.model import Model

MAX_BYTES = 64_000_000
MAX_FILES = 8
LM_EVAL = "lm-eval:"

_TASK = re.compile(r"lm-eval:([A-Za-z0-9][A-Za-z0-9_.\-]{0,99})(?::([1-9][0-9]{0,6}))?")


def read_dataset(word: str) -> Dataset:
    """The data set that `--data WORD` names, fully checked; BadInput names file, line and cure."""
    if word.startswith(LM_EVAL):
        return _lm_eval(word)
    path = Path(os.path.expanduser(word))
    data = read_bytes(path)
    kind, content = parse(path.name, data)
    return Dataset(
        path.name,
        kind,
        str(path.resolve()),
        hashlib.sha256(data).hexdigest(),
        len(content),
        len(data),
    )


def read_datasets(words: Iterable[str]) -> tuple[Dataset, ...]:
    """All data sets of a study; BadInput for too many, or the same one twice."""
    paths = tuple(words)
    if len(paths) > MAX_FILES:
        raise BadInput(f"--data is given {len(paths)} times, at most {MAX_FILES} are measured")
    datasets: list[Dataset] = []
    for word in paths:
        dataset = read_dataset(word)
        same = next((other for other in datasets if other.identity == dataset.identity), None)
        if same is not None:
            raise BadInput(f"--data {word}: the same content as {same.id}; give it once")
        if any(other.id == dataset.id for other in datasets):
            raise BadInput(f"--data {word}: two files are called {dataset.id}; rename one")
        datasets.append(dataset)
    return tuple(datasets)


def datasets_for(words: Iterable[str], model: Model) -> tuple[Dataset, ...]:
    """All data sets of a case; BadInput also for one that cannot judge `model`."""
    datasets = read_datasets(words)
    for dataset in datasets:
        reason = refusal(dataset, model)
        if reason is not None:
            raise BadInput(f"--data: {reason}")
    return datasets


def load_dataset(dataset: Dataset) -> Content:
    """The items of a file, read again; BadInput when its bytes are no longer those of the plan."""
    data = read_bytes(Path(dataset.path))
    if hashlib.sha256(data).hexdigest() != dataset.sha256:
        raise BadInput(
            f"{dataset.id} has changed since the study was planned: bring the old file back, or"
            " plan a new study with the new one"
        )
    return parse(Path(dataset.path).name, data)[1]


def refusal(dataset: Dataset, model: Model) -> str | None:
    """Why `model` cannot be judged by `dataset`, in a sentence, or None."""
    if model.source == "shape":
        return f"{model.id} has random weights: no data can judge it; leave --data out"
    wanted = "image" if dataset.kind == "images" else "text"
    if wanted != model.task:
        return f"{dataset.id} is for {wanted} models, {model.id} is for {model.task}"
    if dataset.kind == "images":
        return load_dataset(dataset).images().refusal(dataset.id, model)
    return None


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file of at most MAX_BYTES; BadInput says what is wrong with it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BadInput("--data: the file's name is not UTF-8; rename it") from None
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(f"--data {path} is not a regular file")
        if facts.st_size <= MAX_BYTES:
            # The size may grow between the two calls.
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) <= MAX_BYTES:
                return data
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"--data {path} cannot be read: {why}") from None
    raise BadInput(
        f"--data {path} has more than {MAX_BYTES // 1_000_000} MB: give a sample of it, quality"
        " needs some thousand items at most"
    )


def _lm_eval(word: str) -> Dataset:
    match = _TASK.fullmatch(word)
    if match is None:
        raise BadInput(f"--data {word!r} is not of the form lm-eval:TASK or lm-eval:TASK:LIMIT")
    if importlib.util.find_spec("lm_eval") is None:
        raise BadInput(f"--data {word} needs lm-eval: pip install 'trimtab[eval]'")
    return Dataset(word, "lm-eval", "", "", int(match[2] or 0), 0)


def lm_eval_task(dataset: Dataset) -> tuple[str, int | None]:
    """(name, limit or None) of an lm-eval data set."""
    match = _TASK.fullmatch(dataset.id)
    if match is None:
        raise BadInput(f"the data set {dataset.id!r} names no lm-eval task")
    return match[1], int(match[2]) if match[2] else None
