"""A kernel that was asked for by name and cannot run is a refusal with a sentence."""

from __future__ import annotations

import pytest

from core.errors import Refused
from core.machine.kernel_choice import complaint, refusing
from kernels.registry import ENVIRONMENT, select


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("nonsense", "'nonsense' is not op=name"),
        ("linear_lowbit=", "'linear_lowbit=' is not op=name"),
        ("linear_lowbit=nonsense", "linear_lowbit has no kernel 'nonsense'; there are cpp"),
        ("linear=torch", "no operation 'linear'; there are linear_dense"),
    ],
)
def test_a_variable_that_cannot_be_read_is_said_once(
    asked: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, asked)
    with pytest.raises(Refused) as refusal, refusing():
        select("linear_dense", "cpu", "fp32")
    assert words in str(refusal.value)
    assert str(refusal.value).count(ENVIRONMENT) == 1
    said = complaint("cpu")
    assert said is not None
    assert said.startswith(words[:10])
    assert ENVIRONMENT not in said


def test_a_kernel_that_does_not_fit_names_who_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "linear_lowbit=torch-int4pack")
    assert complaint("cpu") is None
    with pytest.raises(Refused) as refusal, refusing():
        select("linear_lowbit", "cpu", "nf4")
    assert "torch-int4pack takes int4" in str(refusal.value)
    assert "TRIMTAB_KERNEL=linear_lowbit=torch-int4pack asks for it" in str(refusal.value)


def test_a_kernel_of_another_device_is_complained_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv(ENVIRONMENT, "linear_dense=torch,linear_lowbit=triton")
    said = complaint("cpu")
    assert said is not None
    assert said.startswith("linear_lowbit=triton cannot run here (")
    assert said.endswith("name another kernel of linear_lowbit.")


def test_nothing_asked_for_is_nothing_to_complain_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert complaint("cpu") is None


def test_what_nobody_asked_for_names_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(Refused, match="no operation 'gone'") as refusal, refusing():
        select("gone", "cpu", "fp32")
    assert ENVIRONMENT not in str(refusal.value)
