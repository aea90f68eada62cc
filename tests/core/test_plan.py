"""Plans: a key that names the content alone, an order that makes sense, hostile words."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import core
from core import techniques
from core.errors import BadInput
from core.journal import codec
from core.model import ClassifierShape, DecoderShape, Model
from core.plan import Case, Plan, label, parse_setting, settings
from core.target import Target
from core.techniques.batch.static import StaticBatch
from core.techniques.decode.speculative import Speculative
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.kinds import refuse
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.weight_int import WeightInt4, WeightInt8
from core.workload import Workload

MODEL = Model("pycode", "llama", "bundled", "r1", DecoderShape(64, 2, 4, 2, 16, 96, 512, 256))
IMAGES = Model("digits-cnn", "image-classifier", "bundled", "r1", ClassifierShape(1, 1, 64, 10, 64))
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
CHAT = Workload("chat", "Chat", "text", 128, 64)
CASE = Case(MODEL, TARGET, CHAT)
STACK = (PruneMlpChannels(0.25), SoftTargets(steps=24), WeightInt8(), StaticBatch(8))


def test_a_key_is_the_hash_of_the_canonical_json_written_out_by_hand() -> None:
    plan = Plan(CASE, (WeightInt4(64), StaticBatch(8)), seed=3)
    text = (
        '{"model":["pycode","r1"],"seed":3,"target":"local","techniques":'
        '[{"group_size":64,"name":"weight-int4"},{"name":"static-batch","size":8}],'
        '"workload":["chat",128,64,1]}'
    )
    assert plan.key == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_equal_plans_have_equal_keys() -> None:
    assert Plan(CASE, STACK).key == Plan(replace(CASE), tuple(replace(one) for one in STACK)).key
    as_integers, as_floats = SoftTargets(alpha=1, temperature=2), SoftTargets(alpha=1.0)
    assert as_integers == as_floats
    assert Plan(CASE, (as_integers,)).key == Plan(CASE, (as_floats,)).key


def test_a_key_survives_the_codec() -> None:
    plan = Plan(CASE, (SoftTargets(alpha=0, learning_rate=1), *STACK), seed=7)
    assert codec.loads(codec.dumps(plan)).key == plan.key


@pytest.mark.parametrize(
    "other",
    [
        Plan(CASE, STACK, seed=1),
        Plan(CASE, STACK[:-1]),
        Plan(CASE, (STACK[1], STACK[0], *STACK[2:])),
        Plan(CASE, (PruneMlpChannels(0.26), *STACK[1:])),
        Plan(CASE, (*STACK[:1], SoftTargets(steps=25), *STACK[2:])),
        Plan(CASE, (*STACK[:1], SoftTargets(24, 0.8), *STACK[2:])),
        Plan(CASE, (*STACK[:1], SoftTargets(24, temperature=1.0), *STACK[2:])),
        Plan(CASE, (*STACK[:1], SoftTargets(24, learning_rate=1e-4), *STACK[2:])),
        Plan(CASE, (*STACK[:2], WeightInt4(), STACK[3])),
        Plan(CASE, (*STACK[:3], StaticBatch(4))),
        Plan(replace(CASE, model=replace(MODEL, revision="r2")), STACK),
        Plan(replace(CASE, model=replace(MODEL, id="other")), STACK),
        Plan(replace(CASE, target=replace(TARGET, id="h200")), STACK),
        Plan(replace(CASE, workload=replace(CHAT, id="batch")), STACK),
        Plan(replace(CASE, workload=replace(CHAT, prompt_tokens=129)), STACK),
        Plan(replace(CASE, workload=replace(CHAT, output_tokens=65)), STACK),
        Plan(replace(CASE, workload=replace(CHAT, concurrency=2)), STACK),
    ],
)
def test_any_changed_setting_changes_the_key(other: Plan) -> None:
    assert other.key != Plan(CASE, STACK).key


def test_what_does_not_change_the_outcome_does_not_change_the_key() -> None:
    renamed = replace(CASE, model=replace(MODEL, title="another title"))
    assert Plan(renamed, STACK).key == Plan(CASE, STACK).key


def test_a_key_does_not_depend_on_the_process() -> None:
    plan = Plan(CASE, STACK)
    root = str(Path(core.__file__).parent.parent)
    script = "import sys; from core.journal import codec; print(codec.loads(sys.stdin.read()).key)"
    for seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=codec.dumps(plan),
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == plan.key


def test_a_title_names_each_technique_with_its_first_setting_and_what_differs() -> None:
    assert Plan(CASE).title == "baseline"
    assert label(WeightInt4()) == "weight-int4(group_size=32)"
    assert label(Speculative(5, "x/y")) == "speculative(tokens=5, draft=x/y)"
    title = Plan(CASE, (PruneMlpChannels(0.5), WeightInt4(64), StaticBatch(8))).title
    assert title == "prune-mlp(sparsity=0.5) + weight-int4(group_size=64) + static-batch(size=8)"


def test_settings_are_json_ready_and_complete() -> None:
    assert json.loads(json.dumps(settings(SoftTargets()))) == {
        "name": "distill-soft",
        "steps": 40,
        "alpha": 0.9,
        "temperature": 2.0,
        "learning_rate": 5e-4,
    }


def test_a_plan_says_how_many_sequences_go_together() -> None:
    assert Plan(CASE).batch == 1
    assert Plan(CASE, STACK).batch == 8


def test_the_order_that_makes_sense_is_accepted() -> None:
    assert refuse(Plan(CASE)) is None
    assert refuse(Plan(CASE, STACK)) is None
    assert refuse(Plan(CASE, (WeightInt8(), Speculative()))) is None
    assert refuse(Plan(CASE, (Speculative(), StaticBatch(1)))) is None


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ((WeightInt8(), PruneMlpChannels()), "prune-mlp must come before weight-int8"),
        ((StaticBatch(8), WeightInt8()), "weight-int8 must come before static-batch"),
        ((SoftTargets(), PruneMlpChannels()), "prune-mlp must come before distill-soft"),
        ((PruneMlpChannels(), WeightInt8(), SoftTargets()), "distill-soft must come before"),
        ((WeightInt8(), WeightInt4()), "one technique of kind quantize, this one has 2"),
        ((StaticBatch(2), StaticBatch(2)), "one technique of kind batch"),
        ((Speculative(), Speculative(2)), "one technique of kind decode"),
        ((Speculative(), StaticBatch(2)), "one sequence at a time"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_a_sentence(
    stack: tuple[techniques.Technique, ...], words: str
) -> None:
    reason = refuse(Plan(CASE, stack))
    assert reason is not None
    assert words in reason


def test_techniques_of_language_models_refuse_an_image_classifier() -> None:
    images = Case(IMAGES, TARGET, Workload("sensor", "Sensor", "image"))
    for technique in (PruneMlpChannels(), SoftTargets(), Speculative()):
        reason = refuse(Plan(images, (technique,)))
        assert reason is not None
        assert reason.startswith(f"{technique.name}: needs a decoder")
    for technique in (StaticBatch(16), WeightInt8(), WeightInt4()):
        assert refuse(Plan(images, (technique,))) is None


def test_speculation_needs_another_model_as_its_draft() -> None:
    stranger = replace(CASE, model=replace(MODEL, id="owner/name"))
    assert "name one with speculative:draft=" in str(refuse(Plan(stranger, (Speculative(),))))
    assert refuse(Plan(stranger, (Speculative(draft="pycode-small"),))) is None
    itself = refuse(Plan(stranger, (Speculative(draft="owner/name"),)))
    assert "another, smaller model" in str(itself)


def test_random_weights_cannot_be_distilled() -> None:
    shape = replace(CASE, model=replace(MODEL, id="shape:x", source="shape"))
    assert "random weights" in str(refuse(Plan(shape, (SoftTargets(),))))


def test_a_technique_is_read_from_the_command_line() -> None:
    assert techniques.parse("weight-int8") == WeightInt8()
    assert techniques.parse("weight-int4:group_size=128") == WeightInt4(128)
    assert techniques.parse("prune-mlp:sparsity=1e-1") == PruneMlpChannels(0.1)
    assert techniques.parse("speculative:tokens=5,draft=a/b") == Speculative(5, "a/b")
    assert techniques.parse("distill-soft:alpha=1,steps=3") == SoftTargets(steps=3, alpha=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown technique ''"),
        ("weight-int3", "unknown technique 'weight-int3'; known techniques: prune-mlp"),
        ("weight-int4:", None),
        ("weight-int4:group_size", "'group_size' is not key=value"),
        ("weight-int4:group_size=", "is not key=value"),
        ("weight-int4:=32", "is not key=value"),
        ("weight-int4:group_size=32,group_size=64", "group_size is given twice"),
        ("weight-int4:group_size=48", "group_size must be one of 32, 64, 128, not 48"),
        ("weight-int4:group_size=32.0", "is not a number"),
        ("weight-int4:groups=32", "has no setting 'groups'; it has: group_size"),
        ("weight-int8:name=evil", "has no setting 'name'; it has: none"),
        ("weight-int8:kind=batch", "has no setting 'kind'"),
        ("weight-int8:__class__=x", "has no setting '__class__'"),
        ("prune-mlp:sparsity=nan", "sparsity must lie between 0 and 1"),
        ("prune-mlp:sparsity=inf", "sparsity must lie between 0 and 1"),
        ("prune-mlp:sparsity=0", "sparsity must lie between 0 and 1"),
        ("prune-mlp:sparsity=1", "sparsity must lie between 0 and 1"),
        ("prune-mlp:sparsity=half", "sparsity='half' is not a number"),
        ("distill-soft:temperature=nan", "finite and above 0"),
        ("distill-soft:learning_rate=inf", "finite and above 0"),
        ("distill-soft:temperature=0", "finite and above 0"),
        ("distill-soft:alpha=nan", "alpha must lie between 0 and 1"),
        ("distill-soft:steps=0", "steps must lie between 1 and 100000"),
        ("distill-soft:steps=-3", "steps must lie between"),
        ("static-batch:size=0", "size must lie between 1 and 1024"),
        ("static-batch:size=1025", "size must lie between 1 and 1024"),
        ("static-batch:size=" + "9" * 5000, "is not a number"),
        ("speculative:tokens=0", "tokens must lie between 1 and 16"),
    ],
)
def test_hostile_technique_texts_get_a_sentence(text: str, words: str | None) -> None:
    if words is None:
        assert techniques.parse(text) == techniques.parse(text.rstrip(":"))
        return
    with pytest.raises(BadInput) as caught:
        techniques.parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_technique_or_bad_input(text: str) -> None:
    for prefix in ("", "weight-int4:", "distill-soft:steps=", "speculative:draft="):
        try:
            found = techniques.parse(prefix + text)
        except BadInput:
            continue
        assert techniques.is_technique(found)


def test_a_technique_is_written_as_it_is_read() -> None:
    assert techniques.spell(WeightInt8()) == "weight-int8"
    assert techniques.spell(WeightInt4(128)) == "weight-int4:group_size=128"
    exact = techniques.parse("prune-mlp:sparsity=0.30000000000000004")
    assert techniques.parse(techniques.spell(exact)) == exact
    for kind in techniques.TECHNIQUES:
        images = replace(CASE, model=IMAGES)
        proposals = [*kind.proposals(CASE), *kind.proposals(images)]
        for one in (kind(), *(proposal.technique for proposal in proposals)):
            assert techniques.parse(techniques.spell(one)) == one


def test_settings_are_split_at_the_first_colon_and_equals() -> None:
    assert parse_setting("speculative:draft=shape:a=b") == ("speculative", {"draft": "shape:a=b"})


def test_fields_of_the_wrong_type_are_refused_when_a_technique_is_built() -> None:
    for given_fields in ({"size": "8"}, {"size": True}, {"size": 2.0}, {"size": None}):
        with pytest.raises(BadInput, match="static-batch"):
            techniques.build("static-batch", dict(given_fields))
    for name in ([], {"a": 1}, None, 3):
        with pytest.raises(BadInput, match="unknown technique"):
            techniques.build(name, {})  # type: ignore[arg-type]


def test_every_technique_proposes_settings_of_its_own_kind() -> None:
    several = replace(CASE, workload=replace(CHAT, concurrency=4))
    for kind in techniques.TECHNIQUES:
        found = kind.proposals(several)
        assert found
        assert all(type(one.technique) is kind for one in found)


@pytest.mark.parametrize("value", [-0.0, 0, 0.0])
def test_minus_nought_is_nought(value: float) -> None:
    assert repr(techniques.build("gptq", {"damping": value}).damping) == "0.0"  # type: ignore[attr-defined]
    assert repr(techniques.parse("gptq:damping=-0").damping) == "0.0"  # type: ignore[attr-defined]
