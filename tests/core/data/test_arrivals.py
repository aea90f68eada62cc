"""Arrivals: the Poisson process against its law, traces in the forms that the field shares."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from core.data.arrivals import Arrival, arrivals, read_trace, with_arrivals
from core.errors import BadInput
from core.workload import Workload

CHAT = Workload("chat", "Chat", "text", 9, 6)


def test_gaps_of_a_poisson_process_are_exponential() -> None:
    found = arrivals(replace(CHAT, arrival_per_s=4.0), 2000, 1)
    gaps = [b.at_s - a.at_s for a, b in itertools.pairwise(found)]
    assert found[0] == Arrival(0.0, 9, 6)
    assert stats.kstest(gaps, "expon", (0, 0.25)).pvalue > 0.01
    assert arrivals(replace(CHAT, arrival_per_s=4.0), 2000, 1) == found


def test_a_workload_without_traffic_has_no_arrivals() -> None:
    assert arrivals(CHAT, 10, 0) == ()


OWN = "arrival_s,prompt_tokens,output_tokens\n5.5,10,3\n4.0,20,1\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 23:59:59.500000+00:00,2162,5\n2024-05-11 00:00:00.5+00:00,76,15\n"
    "2024-05-11 01:59:59.500012+02:00,2399,6\n"
)
MOONCAKE = (
    '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n\n'
    '{"timestamp": 30535, "input_length": 6472, "output_length": 26}\n'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OWN, (Arrival(0.0, 20, 1), Arrival(1.5, 10, 3))),
        ("\ufeff" + OWN.replace("\n", "\r\n"), (Arrival(0.0, 20, 1), Arrival(1.5, 10, 3))),
        (AZURE, (Arrival(0.0, 374, 44), Arrival(4.314579, 396, 109))),
        (AZURE_2024, (Arrival(0.0, 2162, 5), Arrival(0.000012, 2399, 6), Arrival(1.0, 76, 15))),
        (MOONCAKE, (Arrival(0.0, 6955, 52), Arrival(3.053, 6472, 26))),
    ],
    ids=["own", "own-windows", "azure", "azure-2024", "mooncake"],
)
def test_traces_of_the_field_are_read(
    text: str, expected: tuple[Arrival, ...], tmp_path: Path
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(text.encode())
    found = read_trace(path)
    assert [one.at_s for one in found] == pytest.approx([one.at_s for one in expected], abs=1e-9)
    assert [(one.prompt_tokens, one.output_tokens) for one in found] == [
        (one.prompt_tokens, one.output_tokens) for one in expected
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no request"),
        ("arrival_s,prompt_tokens,output_tokens\n", "holds no request"),
        ("a,b\n1,2\n", "it needs the columns arrival_s"),
        (OWN + "soon,1,1\n", "line 4: arrival_s 'soon' is neither"),
        (OWN + "1,0,1\n", "line 4: prompt_tokens must be a whole number from 1"),
        (OWN + "1,1,2.5\n", "output_tokens must be a whole number"),
        (OWN + "nan,1,1\n", "not finite"),
        (OWN + "2023-11-16 18:15:46,1,1\n", "line 4: a number of seconds and a time of day stand"),
        (OWN + "1\n", "line 4: prompt_tokens must be"),
        ('arrival_s,prompt_tokens,output_tokens\n"1,2,3\n', "is not CSV"),
        ('{"timestamp": 1\n', "line 1: not an object of JSON"),
        ('{"timestamp": true, "input_length": true, "output_length": 1}', "input_length must be"),
        ("{" * 100_000, "not an object of JSON"),
        ('{"timestamp": 1, "input_length": 99999999999, "output_length": 1}', "10,000,000"),
    ],
)
def test_a_trace_that_cannot_be_used_is_refused_by_name(
    text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_trace(path)
    assert says in str(caught.value)
    assert "trace.csv" in str(caught.value)


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    for path in (tmp_path, tmp_path / "absent", binary):
        with pytest.raises(BadInput, match="the trace"):
            read_trace(path)


def test_words_choose_the_traffic(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(OWN)
    assert with_arrivals(CHAT, "") is CHAT
    assert with_arrivals(CHAT, "2.5").arrival_per_s == 2.5
    traced = with_arrivals(CHAT, f"trace:{path}")
    assert (traced.trace, traced.trace_tokens) == (str(path), 21)
    assert len(arrivals(traced, 1, 0)) == 1
    path.write_text(OWN + "9,1,1\n")
    with pytest.raises(BadInput, match="has changed since"):
        arrivals(traced, 5, 0)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "often", "1e7", "trace:"])
def test_words_that_name_no_traffic_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"--arrival|the trace"):
        with_arrivals(CHAT, text)


def test_images_do_not_arrive() -> None:
    with pytest.raises(BadInput, match="not for text"):
        with_arrivals(replace(CHAT, task="image"), "4")
