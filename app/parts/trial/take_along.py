"""How to have the compressed model of a trial as a folder: the command that writes it."""

from __future__ import annotations

import shlex

import streamlit as st

from app.parts import words
from core import techniques
from core.artefacts.apply import FORMATS, divided
from core.errors import BadInput, Refused
from core.study import Trial


def draw(trial: Trial) -> None:
    """The command of a finished trial whose techniques change the weights; else nothing."""
    if trial.state != "done":
        return
    try:
        changing, runtime = divided(trial.plan, FORMATS[0])
    except (BadInput, Refused):
        return
    model = trial.plan.case.model
    flags = [
        word for technique in changing for word in ("--technique", techniques.spell(technique))
    ]
    seed = ["--seed", str(trial.plan.seed)] if trial.plan.seed else []
    data = [
        word for dataset in trial.plan.case.data for word in ("--data", dataset.path or dataset.id)
    ]
    name = "-".join([model.id.rpartition("/")[2], *(technique.name for technique in changing)])
    command = ["trimtab", "apply", "--model", model.id, *flags, *data, *seed, "-o", name]
    st.header("Take it along", anchor=False)
    st.caption(
        words.plain(
            "Writes this model as a folder that loads again here, bit for bit. With --format, where"
            f" the format holds it, for other programs: {', '.join(FORMATS[1:])}."
            + (
                f" {', '.join(technique.name for technique in runtime)} is chosen anew at serving."
                if runtime
                else ""
            )
        )
    )
    st.code(shlex.join(command), language="bash", wrap_lines=True)
