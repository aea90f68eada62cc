"""A study's plan as it is measured on this box: the same techniques for the target that this
machine is, with the files that it needs where they lie here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.catalogue import models
from core.errors import BadInput
from core.files.fingerprint import Fingerprint, file_digest
from core.files.folder import check_folder
from core.ids import now
from core.machine.targets import detect_local
from core.measure.study.collect import EVERYWHERE, draft_of
from core.measure.study.plan import DRAFT, MODEL, TRACE, PlannedFile, StudyPlan
from core.model import Model
from core.plan import Plan, Technique
from core.study import Study


def for_this_box(
    plan: StudyPlan,
    study_id: str,
    files: Path,
    model: Path | None = None,
    data: Sequence[Path] = (),
) -> tuple[Study, tuple[Plan, ...], Fingerprint | None]:
    """The study `study_id` for this machine, its plans, and what the model's files are (None where
    they come with Trimtab or are drawn at random).

    `files` is where the plan's archive was unpacked; `model` and `data` are what the user gives on
    top. BadInput names what is missing or is not what was planned.
    """
    case = plan.study.case
    if case.target.kind == "mcu":
        raise BadInput(
            f"the study is planned for the sensor {case.target.id}, which no box measures: plan it"
            " with --target local, or for a GPU"
        )
    fingerprint = _model(plan, files, model)
    found = {file_digest(path): path for path in data}
    known = {dataset.sha256 for dataset in case.data} | {case.workload.trace_digest}
    for digest, path in found.items():
        if digest not in known:
            raise BadInput(f"--data {path} is none of the files that the study was planned with")
    for file in plan.files:
        there = file.place and (files / file.place).is_file()
        if file.role not in (MODEL, DRAFT) and there:
            found.setdefault(file.sha256, files / file.place)
    workload = case.workload
    if workload.trace:
        name = next((file.name for file in plan.of_role(TRACE)), workload.trace)
        place = _place(found, workload.trace_digest, workload.trace, f"trace {name}")
        workload = replace(workload, trace=place)
    datasets = tuple(
        replace(each, path=_place(found, each.sha256, each.path, f"data {each.id}"))
        if each.path
        else each
        for each in case.data
    )
    here = replace(case, target=detect_local(), workload=workload, data=datasets)
    study = replace(
        plan.study,
        id=study_id,
        case=here,
        parent_id=plan.study.id,
        created_at=now(),
        state="queued",
        reason="",
    )
    plans = tuple(
        Plan(here, tuple(_with_draft(each, plan, files) for each in old.techniques), old.seed)
        for old in plan.plans
    )
    return study, plans, fingerprint


def _model(plan: StudyPlan, files: Path, given: Path | None) -> Fingerprint | None:
    model = plan.study.case.model
    if model.source in EVERYWHERE:
        if given is not None:
            raise BadInput(f"--model {given}: the study's model {model.id} needs no folder")
        if models.resolve(model.id).revision != model.revision:
            raise BadInput(
                f"the model {model.id} of this Trimtab is not the one of the study: use the version"
                " that planned it"
            )
        return None
    place = given or _unpacked(plan, files) or _own(model)
    if place is None:
        raise BadInput(
            f"the study's model {model.id} is not here and does not go along with the plan: give"
            " its folder with --model FOLDER"
        )
    content = check_folder(place)
    now_there = content.fingerprint()
    wanted = {file.name: file.sha256 for file in plan.of_role(MODEL)}
    changed = [name for name in wanted if _digest(place, name) != wanted[name]]
    changed += [name for name, _ in now_there.files if name not in wanted]
    if changed or content.digest != model.revision:
        what = ", ".join(changed) or "config.json or the weights"
        raise BadInput(f"{place}: {what} are not those that the study was planned with")
    return now_there


def _digest(place: Path, name: str) -> str:
    """Of a file of a model's folder, or of its GGUF file; empty where there is none."""
    path = place / name if place.is_dir() else place
    return file_digest(path) if path.is_file() else ""


def _unpacked(plan: StudyPlan, files: Path) -> Path | None:
    carried = [file for file in plan.of_role(MODEL) if file.place]
    return _folder(carried, files) if carried else None


def _folder(carried: Sequence[PlannedFile], files: Path) -> Path:
    """The folder of a model's unpacked files, or its GGUF file."""
    gguf = next((file for file in carried if file.name.endswith(".gguf")), None)
    if gguf is not None:
        return files / gguf.place
    return files / carried[0].place.split("/")[0]


def _own(model: Model) -> Path | None:
    """The model's folder on this box, where it is what it was planned as."""
    try:
        return models.find_folder(model.id)
    except BadInput:
        return None


def _place(found: dict[str, Path], digest: str, planned: str, what: str) -> str:
    """Where the file with this SHA-256 lies on this box."""
    if digest in found:
        return str(found[digest].absolute())
    path = Path(planned)
    if path.is_file() and file_digest(path) == digest:
        return planned
    raise BadInput(
        f"the study needs the {what} (SHA-256 {digest[:12]}…), which is not here: give it with"
        " --data FILE"
    )


def _with_draft(technique: Technique, plan: StudyPlan, files: Path) -> Technique:
    draft = draft_of(technique)
    carried = [file for file in plan.of_role(DRAFT) if draft and file.of == draft and file.place]
    if not carried:
        return technique
    return replace(technique, draft=str(_folder(carried, files)))  # type: ignore[type-var]
