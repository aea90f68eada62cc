"""What is written is read back equal; what is damaged is refused with a sentence."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from core import techniques
from core.errors import BadInput
from core.journal import codec
from core.measurement import ORIGINS, Measurement
from core.model import ClassifierShape, DecoderShape
from core.plan import Case, Plan
from core.report import Report
from core.study import Study, Trial
from core.techniques.batch.static import StaticBatch
from core.techniques.cache.kv_cache import KvCache
from core.techniques.decode.speculative import Speculative
from core.techniques.prune.mlp_channels import PruneMlpChannels

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=12)


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any setting that a technique allows by its choices and limits; other fields by default."""
    hints = typing.get_type_hints(kind)
    allowed = {name: st.sampled_from(values) for name, values in kind.choices.items()}
    for name, limits in kind.limits.items():
        numbers = st.integers if hints[name] is int else st.floats
        allowed[name] = numbers(*limits)
    for name in kind.positive:
        allowed[name] = st.floats(0, exclude_min=True, allow_infinity=False)
    allowed |= OTHERS.get(kind, {})

    def build(**given: Any) -> Any:
        try:
            return kind(**given)
        except ValueError:
            # Two settings that do not go together.
            reject()

    return st.builds(build, **allowed)


# Fields that neither choices nor limits describe.
OTHERS: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    PruneMlpChannels: {"sparsity": st.floats(0, 1, exclude_min=True, exclude_max=True)},
    KvCache: {"residual": st.integers(0, 4096)},
    Speculative: {"draft": TEXT},
}
TECHNIQUES = st.one_of(*map(any_of, techniques.TECHNIQUES))


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    origin = draw(st.sampled_from(ORIGINS))
    if origin == "unavailable":
        return Measurement(draw(TEXT), (), draw(TEXT), origin, draw(TEXT))
    bounds = draw(st.none() | st.tuples(NUMBERS, NUMBERS).map(lambda pair: tuple(sorted(pair))))
    samples = draw(st.lists(NUMBERS, min_size=1, max_size=5).map(tuple))
    pooled = draw(st.none() | NUMBERS)
    return Measurement(
        draw(TEXT), samples, draw(TEXT), origin, draw(TEXT), pooled=pooled, bounds=bounds
    )


BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {Measurement: measurements()}


def value_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's annotation."""
    if hint in (str, int, float, bool, type(None)):
        wide = st.integers(-(2**53), 2**53)
        return {str: TEXT, int: wide, float: NUMBERS, bool: st.booleans(), type(None): st.none()}[
            hint
        ]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(value_of(arguments[0]), max_size=2).map(tuple)
        return st.tuples(*(value_of(one) for one in arguments))
    if arguments:
        return st.one_of(*(value_of(one) for one in arguments))
    if hint is techniques.Technique:
        return TECHNIQUES
    return instance_of(hint)


def instance_of(kind: type) -> st.SearchStrategy[Any]:
    """Any instance of a stored dataclass."""
    if kind in BY_TYPE:
        return BY_TYPE[kind]
    hints = typing.get_type_hints(kind)
    fields = {field.name: value_of(hints[field.name]) for field in dataclasses.fields(kind)}
    BY_TYPE[kind] = st.builds(kind, **fields)
    return BY_TYPE[kind]


@pytest.mark.parametrize("name", sorted(codec.TYPES))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_type_comes_back_equal(name: str, data: st.DataObject) -> None:
    value = data.draw(instance_of(codec.TYPES[name]))
    again = codec.loads(codec.dumps(value))
    assert again == value
    assert type(again) is type(value)


@given(TECHNIQUES)
def test_every_technique_comes_back_equal(technique: techniques.Technique) -> None:
    assert codec.loads(codec.dumps(technique)) == technique


@pytest.mark.parametrize("kind", techniques.TECHNIQUES)
def test_every_technique_comes_back_as_it_is_by_default(kind: Any) -> None:
    assert codec.loads(codec.dumps(kind())) == kind()


def test_a_whole_number_in_a_float_field_comes_back_as_a_float() -> None:
    text = codec.dumps(Measurement("ttft_s", (2.0,), "s", "measured", "")).replace("2.0", "2")
    found = codec.loads(text)
    assert found.samples == (2.0,)
    limit = codec.loads(
        '{"version":1,"value":{"type":"Limit","metric":"a","relation":"<=","value":2}}'
    )
    assert type(limit.value) is float


def test_a_plan_may_hold_either_shape() -> None:
    for shape in (DecoderShape(1, 1, 1, 1, 2, 3, 4, 5), ClassifierShape(1, 2, 3, 4, 5)):
        assert codec.loads(codec.dumps(shape)) == shape


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"version":1,"value":{"type":"Limit"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "version None"),
        ("null", "version None"),
        ("3", "version None"),
        ('{"value":3}', "version None"),
        ('{"version":2,"value":3}', "version 2, this Trimtab reads version 1"),
        ('{"version":"1","value":3}', "version '1'"),
        ('{"version":1}', "has no value"),
        ('{"version":1,"value":{}}', "unknown type None"),
        ('{"version":1,"value":{"type":"Nonsense"}}', "unknown type 'Nonsense'"),
        ('{"version":1,"value":{"type":["Plan"]}}', "unknown type ['Plan']"),
        ('{"version":1,"value":{"type":"Limit"}}', "stored Limit is incomplete"),
        (
            '{"version":1,"value":{"type":"Limit","metric":"a","relation":"<=","value":1,"x":1}}',
            "stored Limit has unknown fields: x",
        ),
        ('{"version":1,"value":{"technique":"weight-int2"}}', "unknown technique 'weight-int2'"),
        ('{"version":1,"value":{"technique":["weight-int8"]}}', "unknown technique"),
        ('{"version":1,"value":{"technique":{}}}', "unknown technique"),
        (
            '{"version":1,"value":{"technique":"static-batch","size":"many"}}',
            "size='many' is not of type",
        ),
        (
            '{"version":1,"value":{"technique":"static-batch","size":0}}',
            "size must lie between 1 and 1024",
        ),
        (
            '{"version":1,"value":{"technique":"static-batch","speed":0}}',
            "has no setting 'speed'",
        ),
        (
            '{"version":1,"value":{"type":"Measurement","metric":"m","samples":[1],"unit":"",'
            '"origin":"guessed","method":""}}',
            "origin 'guessed' is not one of",
        ),
        (
            '{"version":1,"value":{"type":"Measurement","metric":"m","samples":[NaN],"unit":"",'
            '"origin":"measured","method":""}}',
            "not finite",
        ),
        (
            '{"version":1,"value":{"type":"Measurement","metric":"m","samples":["a"],"unit":"",'
            '"origin":"measured","method":""}}',
            "stored Measurement is damaged: samples cannot be ('a',)",
        ),
        (
            '{"version":1,"value":{"type":"Measurement","metric":7,"samples":[1.0],"unit":"",'
            '"origin":"measured","method":""}}',
            "metric cannot be 7",
        ),
        (
            '{"version":1,"value":{"type":"Measurement","metric":"m","samples":[1.0],"unit":"",'
            '"origin":"measured","method":"","bounds":[1.0]}}',
            "bounds cannot be (1.0,)",
        ),
        (
            '{"version":1,"value":{"type":"Measurement","metric":"m","samples":[1],"unit":"",'
            '"origin":"measured","method":"","pooled":1' + "0" * 400 + "}}",
            "stored Measurement is damaged",
        ),
    ],
)
def test_damage_is_named_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        codec.loads(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [900, 990, 5000])
def test_deep_nesting_is_refused_and_not_a_crash(depth: int) -> None:
    text = '{"version":1,"value":' + "[" * depth + "]" * depth + "}"
    with pytest.raises(BadInput, match=r"deeply|not JSON"):
        codec.loads(text)


def test_a_shallow_nest_of_lists_is_a_nest_of_tuples() -> None:
    assert codec.loads('{"version":1,"value":[[1],[[]]]}') == ((1,), ((),))


@given(st.binary(max_size=60))
def test_random_bytes_never_crash_the_reader(data: bytes) -> None:
    with pytest.raises(BadInput):
        codec.loads(data.decode("latin-1"))


@given(st.data())
def test_a_document_cut_anywhere_is_refused(data: st.DataObject) -> None:
    text = codec.dumps(Plan(Case(*(None,) * 3), (StaticBatch(2),)))  # type: ignore[arg-type]
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(BadInput):
        codec.loads(text[:cut])


def test_numbers_that_json_has_not_are_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        codec.dumps(float("nan"))


def test_the_format_is_a_version_and_a_tagged_value() -> None:
    document = json.loads(codec.dumps(StaticBatch(8)))
    assert document == {"version": 1, "value": {"technique": "static-batch", "size": 8}}


def test_old_rows_without_newer_fields_stay_readable() -> None:
    data = codec.to_data(DecoderShape(1, 1, 1, 1, 2, 3, 4, 5))
    del data["layer_vectors"]
    assert codec.from_data(data) == DecoderShape(1, 1, 1, 1, 2, 3, 4, 5)


def test_every_stored_type_is_a_frozen_dataclass() -> None:
    for kind in (*codec.TYPES.values(), *techniques.TECHNIQUES):
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]
    assert {Study, Trial, Report} <= set(codec.TYPES.values())
