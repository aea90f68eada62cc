"""Which data a trial's quality is measured on: the user's own where they gave some, else the
bundled held-out data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from core.condition import Condition
from core.data.passages import digits, held_out_windows, text_passages
from core.dataset import Dataset, digest
from core.measure.quality.images import image_quality
from core.measure.quality.tasks import answer_quality, choice_quality, spread
from core.measure.quality.text import Text, no_quality, text_quality
from core.measurement import Measurement
from core.planner.presets import Preset
from core.techniques.deployment import Deployment
from core.techniques.training_text import parts

# Tasks scored for each window of held-out text that the preset asks for: 200, 600, 2,400.
ITEMS_PER_WINDOW = 25


def measure_quality(
    deployment: Deployment, preset: Preset, prefix: tuple[int, ...], unchanged: bool
) -> list[Measurement]:
    """Every quality metric of `deployment.engine`, in pairs with a fresh baseline unless it is the
    `unchanged` model itself.

    A metric that several data sets give is unconditioned for the first and has the condition
    `data=NAME` for the others. BadInput when a file is no longer the one that was planned.
    """
    model, data = deployment.case.model, deployment.case.data
    if model.source == "shape":
        return no_quality("a shape model has random weights: it has no quality to measure")
    # Read first: a changed file should not cost a load.
    parted = parts(deployment)
    if model.task == "text" and deployment.tokenizer is None:
        return no_quality("the model folder has no tokenizer.json: held-out text cannot be read")
    baseline = None if unchanged else deployment.load_baseline()

    def on_file(dataset: Dataset) -> list[Measurement]:
        content = parted.judged[dataset.id]
        name = f"{dataset.id}, sha256 {dataset.sha256[:12]}"
        if dataset.id in parted.taken:
            name += ", the part that nothing learns from"
        if content.pictures is not None:
            import torch

            images = content.pictures
            pixels = torch.from_numpy(images.pixels.copy()).reshape(len(images), 1, 8, 8)
            labels = torch.from_numpy(images.labels)
            return on_images(pixels, labels, f"images of {name}")
        if content.texts:
            return on_text(
                text_passages(
                    deployment.tokenizer,
                    prefix,
                    content.texts,
                    name,
                    min(preset.window, model.decoder().context),
                    preset.windows * preset.window,
                ),
            )
        if content.choices:
            tasks, counted = spread(content.choices, ITEMS_PER_WINDOW * preset.windows)
            rows = choice_quality(
                deployment.engine,
                baseline,
                deployment.tokenizer,
                prefix,
                tasks,
                f"{counted} tasks of {name}",
                deployment.report,
            )
            return of_data(rows, *(repr(task).encode() for task in tasks))
        questions, counted = spread(content.answers, ITEMS_PER_WINDOW * preset.windows)
        rows = answer_quality(
            deployment.engine,
            baseline,
            deployment.tokenizer,
            prefix,
            questions,
            f"{counted} tasks of {name}",
            deployment.report,
        )
        return of_data(rows, *(repr(task).encode() for task in questions))

    def on_text(text: Text) -> list[Measurement]:
        rows = text_quality(deployment.engine, baseline, text)
        passages = ((each.scored, each.ids.tolist()) for each in text.passages)
        return of_data(rows, *(repr(passage).encode() for passage in passages))

    def on_images(pixels: Any, labels: Any, name: str) -> list[Measurement]:
        device = deployment.device
        rows = image_quality(
            deployment.engine, baseline, pixels.to(device), labels.to(device), name
        )
        return of_data(rows, pixels.cpu().numpy().tobytes(), labels.cpu().numpy().tobytes())

    def on_task(task: Dataset) -> list[Measurement]:
        from core.measure.quality.lm_eval_adapter import task_quality

        rows = task_quality(deployment.engine, baseline, deployment.tokenizer, prefix, task)
        return of_data(rows, task.id.encode())

    groups: list[tuple[str, list[Measurement]]] = []
    if model.task == "image" and not data:
        groups.append(("held-out digits", on_images(*digits("held_out"), "held-out digits")))
    elif model.task == "text" and not any(dataset.kind == "text" for dataset in data):
        length = min(preset.window, model.decoder().context)
        windows = held_out_windows(deployment.tokenizer, prefix, preset.windows, length)
        groups.append(("held-out text", on_text(windows)))
    for dataset in data:
        rows = on_file(dataset) if dataset.path else on_task(dataset)
        groups.append((dataset.id, rows))
    return list(_conditioned(groups))


def of_data(rows: list[Measurement], *parts: bytes) -> list[Measurement]:
    """The measurements with the identity of what they were judged on."""
    data = digest(*parts)
    return [row if row.origin == "unavailable" else replace(row, data=data) for row in rows]


def _conditioned(groups: Iterable[tuple[str, list[Measurement]]]) -> Iterable[Measurement]:
    """The first of each metric as it is, every later one under the condition of its data."""
    seen: set[str] = set()
    for name, rows in groups:
        for row in rows:
            yield replace(row, condition=Condition("data", name)) if row.metric in seen else row
        seen.update(row.metric for row in rows)
