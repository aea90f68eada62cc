"""The figure of methods: one line a technique, every trial a point, nothing lost."""

from __future__ import annotations

from app.figures.marks import ChartPoint
from app.figures.methods import method_of, methods
from core import techniques
from core.model import DecoderShape, Model
from core.plan import Case, Plan
from core.target import Target
from core.workload import Workload

CASE = Case(
    Model("m", "llama", "bundled", "r1", DecoderShape(64, 2, 4, 2, 16, 96, 131, 512)),
    Target("local", "here", "cpu", "local", 10**9, None, (), local=True),
    Workload("chat", "Chat", "text", 32, 8),
)


def point(trial_id: str, x: float, y: float, origin: str = "measured") -> ChartPoint:
    return ChartPoint(trial_id, f"<b>{trial_id}</b>", x, y, None, (y / 2, y * 2), origin)


def test_a_method_is_the_names_without_settings() -> None:
    chosen = tuple(map(techniques.parse, ("weight-int4:group_size=64", "static-batch:size=2")))
    assert method_of(Plan(CASE, chosen)) == "weight-int4 + static-batch"
    assert method_of(Plan(CASE)) == "baseline"


def test_each_method_is_one_line_in_the_order_of_the_axis() -> None:
    shown = [point("a2", 3e6, 0.1), point("b", 2e6, 0.4), point("a1", 1e6, 0.9)]
    names = {"a1": "gptq", "a2": "gptq", "b": "awq"}
    figure = methods(shown, names, "model_bytes", "kl_nats", log_y=True)
    lines = [one for one in figure.data if one.mode == "lines"]
    assert [len(one.x) for one in lines] == [2]
    assert list(lines[0].x) == sorted(lines[0].x)
    marks = {one.name: list(one.customdata) for one in figure.data if one.mode == "markers"}
    assert marks == {"awq": ["b"], "gptq": ["a1", "a2"]}
    assert figure.layout.yaxis.type == "log"


def test_what_was_not_measured_is_hollow_and_text_is_escaped() -> None:
    shown = [point("a", 1.0, 0.1, "estimated")]
    figure = methods(shown, {"a": "<img src=x>"}, "model_bytes", "kl_nats")
    (mark,) = figure.data
    assert mark.marker.symbol.endswith("-open")
    assert mark.name == "&lt;img src=x&gt; (not measured)"
    assert "<b>a</b>" not in mark.hovertext[0]
