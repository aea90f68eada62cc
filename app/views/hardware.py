"""Hardware: this machine's facts and measured limits, and the catalogue's targets beside it.

Measuring runs in a child (app.jobs.calibrator); this page asks for it and shows what is stored.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import services
from app.figures import charts, rates
from app.jobs.calibrator import get_calibrator
from app.parts import common, environment_facts, words
from core import format
from core.catalogue.targets import entries
from core.machine import calibrate, targets
from core.machine.calibration.record import Calibration, Rate
from core.machine.environment import environment
from core.target import Target

KINDS = {"read": "Read", "copy": "Copy", "triad": "Add two arrays (triad)"}


def page() -> None:
    """Draw the page."""
    st.title("Hardware", anchor=False)
    identifier, facts = environment()
    known = calibrate.stored(identifier)
    here = targets.detect_local()
    st.caption(
        words.plain(
            f"{here.name} · "
            f"{format.number(float(facts['memory_bytes']), 'B')} · environment {identifier}"
        )
    )
    _limits(known, here)
    _calibrate(known)
    if known is not None:
        _reading(known, facts)
        _rates(known)
    st.header("Beside the catalogue", anchor=False)
    _targets(here)
    st.header("What this machine is", anchor=False)
    environment_facts.table(facts)


def _limits(known: Calibration | None, here: Target) -> None:
    """The headline limits, or what is missing."""
    st.header("What this machine can do at most", anchor=False)
    if known is None:
        st.markdown(
            "**Not measured yet.** Without its limits, predictions for this machine are guesses "
            "from its core count, and trials cannot say which share of the memory's and the "
            "processor's limit they reach. Measuring takes under a minute."
        )
        return
    memory, peaks = known.memory_bandwidth(), dict(known.peaks)
    fastest = known.reading()[0] if known.reading() else None
    call = next(iter(known.of("overhead", "torch operation")), None)
    tiles: list[tuple[str, str, str]] = []
    if memory is not None:
        tiles.append(("Reads memory", format.number(memory, "B/s"), "Decoding"))
    if fastest is not None and memory is not None and fastest.best > 1.25 * memory:
        size = format.binary(fastest.size)
        tiles.append(("Reads its caches", format.number(fastest.best, "B/s"), f"{size} read again"))
    tiles.append(("Copies memory", format.number(known.bandwidth, "B/s"), "Read and written bytes"))
    ordered = sorted(peaks.items(), key=lambda item: -item[1])
    for name, rate in ordered[:2]:
        tiles.append((f"Multiplies {name}", format.number(rate, "op/s"), "Reading a prompt"))
    if call is not None:
        tiles.append(("Starts an operation", format.number(call.best, "s"), "One call of torch"))
    with st.grid(len(tiles), min_column_width=150, gap="small"):
        for label, value, help_ in tiles:
            with st.container(border=True, height="stretch"):
                st.metric(label, value)
                st.caption(help_)


def _calibrate(known: Calibration | None) -> None:
    """The button, what stands against pressing it, and progress."""
    jobs = services.get_services().jobs
    active = jobs.active()
    calibrator = get_calibrator()
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button(
            "Calibrate now" if known is None else "Calibrate again",
            type="primary",
            icon=":material/speed:",
            key="calibrate",
            disabled=bool(active) or calibrator.progress().running,
            help="Measures bandwidth, matrix peaks and overheads in a process of its own.",
        )
        if known is not None:
            st.caption(words.plain(_when(known)), width="stretch")
    if active:
        st.warning(
            f"Studies: {words.at_work(len(jobs.running()), len(active))}. Calibrating now would "
            "disturb the trial that is being timed and read too low. Wait until nothing runs.",
            icon=":material/warning:",
        )
    if known is not None and (known.others_cores or 0.0) > calibrate.DISTURBED:
        st.warning(
            f"Other processes took {known.others_cores:.1f} cores while this was measured, so "
            "these limits are too low and shares of them too high. Calibrate again when the "
            "machine is quiet.",
            icon=":material/warning:",
        )
    if pressed:
        calibrator.start()
        st.rerun()
    _progress()


def _when(known: Calibration) -> str:
    others = ""
    if known.others_cores is not None:
        others = f", other processes took {known.others_cores:.1f} cores meanwhile"
    return (
        f"Measured {words.ago(known.taken_at)} ({known.taken_at[:16].replace('T', ' ')} UTC) in "
        f"{known.seconds:.0f} s{others}."
    )


def _progress() -> None:
    """A bar while a calibration runs; the whole page again when it has ended."""
    now = get_calibrator().progress()
    if now.error:
        st.error(words.plain(now.error), icon=":material/error:")
    if now.running:
        st.fragment(_bar, run_every=1)()


def _bar() -> None:
    now = get_calibrator().progress()
    if not now.running:
        st.rerun()
    st.progress(now.share, text=f"Measuring: {words.plain(now.stage)}, {now.share:.0%}")


def _reading(known: Calibration, facts: dict[str, Any]) -> None:
    """How fast bytes are read, by how many they are."""
    if len(known.reading()) < 2:
        return
    st.header("Reading by size", anchor=False)
    st.caption(
        "A decode step reads all weights and the KV cache once. As long as they fit into a cache, "
        "its speed is the limit, beyond it that of memory. Best of the repetitions; whiskers reach "
        "to the lower quarter."
    )
    st.plotly_chart(
        rates.reading(known, facts.get("caches", {}), common.dark()),
        config=charts.CONFIG,
        theme=None,
        key="reading",
        alt="Reading bandwidth over the size that is read; the table below has the numbers",
    )


def _rates(known: Calibration) -> None:
    with st.expander(f"All {len(known.rates)} rates as they were measured", icon=":material/list:"):
        st.dataframe(
            pd.DataFrame([_rate(rate) for rate in known.rates]),
            hide_index=True,
            height="content",
            alt="Every measured rate of this machine",
            column_config={"How": st.column_config.TextColumn(width=330)},
        )


def _rate(rate: Rate) -> dict[str, Any]:
    what = KINDS.get(rate.name) or {"peak": f"Multiply {rate.format}"}.get(rate.name, rate.format)
    sized = rate.size and rate.name != "peak"
    return {
        "What": what[:1].upper() + what[1:],
        "Size": format.binary(rate.size) if sized else "—",
        "Threads": str(rate.threads or "—"),
        "Best": format.number(rate.best, rate.unit),
        "Median": format.number(rate.median, rate.unit),
        "Spread": format.percent(rate.spread).lstrip("+"),
        "n": str(rate.n),
        "How": rate.how,
    }


def _targets(here: Target) -> None:
    """This machine first, then the catalogue."""
    rows = [_target(target) for target in (here, *(entry.target for entry in entries()))]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height=420,
        alt="This machine and the targets of the catalogue with their stated limits",
        column_config={
            "Target": st.column_config.TextColumn(width=260, pinned=True),
            "Source": st.column_config.TextColumn(width=360),
        },
        placeholder="—",
    )
    st.caption(
        "Bandwidth is what a copy reaches here, and what the maker states for the others: real "
        "programs reach 60 to 90 % of a stated one. In GB, GB/s and Top/s, so that columns sort."
    )


def _target(target: Target) -> dict[str, Any]:
    def scaled(value: float | None, factor: float) -> float | None:
        return None if value is None else float(f"{value / factor:.4g}")

    return {
        "Target": target.title,
        "Where": target.place,
        "Memory, GB": scaled(float(target.memory_bytes), 1e9),
        "Bandwidth, GB/s": scaled(target.bandwidth, 1e9),
        "fp32, Top/s": scaled(target.peak("fp32"), 1e12),
        "bf16, Top/s": scaled(target.peak("bf16") or target.peak("fp16"), 1e12),
        "int8, Top/s": scaled(target.peak("int8"), 1e12),
        "Power, W": target.power_w,
        "$/hour": target.usd_per_hour,
        "Source": target.source,
    }
