"""The technique kv-cache: what it refuses, what changes, and that quality is that of the codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from core import techniques
from core.catalogue import models, workloads
from core.data.passages import held_out_windows
from core.engine.cache.quantized import QuantizedCache
from core.engine.decoder import Decoder
from core.engine.load.load import load_engine, load_tokenizer
from core.engine.serve.generate import generate
from core.errors import BadInput, Refused
from core.machine import targets
from core.machine.work import work_of
from core.measure.quality.text import text_quality
from core.plan import Case, Plan
from core.predict import predict
from core.predict.account import account
from core.predict.effects import effects
from core.predict.work import decoder_work
from core.techniques.cache.kv_cache import KvCache
from core.techniques.deployment import Deployment
from core.techniques.kinds import refuse
from kernels import calls
from kernels.kv_codes import KVFormat

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


def plan(text: str, workload: str = "summarize", model: str = "pycode") -> Plan:
    case = Case(models.resolve(model), targets.resolve("h100-sxm"), workloads.resolve(workload))
    return Plan(case, tuple(techniques.parse(part) for part in text.split()))


def test_every_pass_keeps_its_keys_and_values_in_codes(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16")
    deployment, notes = deploy(engine)
    KvCache(bits=2, residual=0).apply(deployment)
    cache = deployment.engine.new_cache(3, 200)
    assert isinstance(cache, QuantizedCache)
    assert cache.format == KVFormat(2, 32, 0)
    assert notes == [
        "kv2-g32-r0: a cache of 1,024 tokens went from 262,144 to"
        f" {engine.new_cache(1, 1024).nbytes:,} bytes"
    ]
    calls.reset()
    generate(engine, torch.randint(0, 131, (2, 40)), 8)
    names = {one["name"] for one in calls.snapshot() if one["op"] == "attention"}
    assert names == {"cpp-kv2"}


def small() -> Decoder:
    """pycode-small in float32, so that only codes and no other rounding tells in the logits."""
    found = load_engine(models.resolve("pycode-small"))
    return Decoder.from_tensors(found.config, found.export_tensors(), "fp32")


def test_quality_is_measured_on_the_cache_that_runs(deploy: Deploy) -> None:
    model = models.resolve("pycode-small")
    text = held_out_windows(load_tokenizer(model), (0,), 2, 150)
    kl = {}
    for bits in (8, 4, 2):
        engine, plain = small(), small()
        KvCache(bits=bits, residual=0).apply(deploy(engine)[0])
        found = {one.metric: one.pooled for one in text_quality(engine, plain, text)}
        kl[bits] = found["kl_nats"]
        ids = torch.stack([one.ids for one in text.passages])
        cache, tokens = engine.new_cache(*ids.shape), ids.shape[1] - 1
        steps = [engine.forward(ids[:, i : i + 1], cache) for i in range(tokens)]
        scored = text.passages[0].scored
        mine = torch.log_softmax(torch.cat(steps, 1)[:, -scored:], -1).double()
        wanted = torch.log_softmax(plain.forward(ids[:, :-1])[:, -scored:], -1).double()
        stepwise = float((wanted.exp() * (wanted - mine)).sum(-1).mean())
        assert kl[bits] == pytest.approx(stepwise, rel=0.02)
    assert 1e-7 < kl[8] * 50 < kl[4]
    assert kl[4] * 5 < kl[2]


def test_what_cannot_have_it_is_told_why(case: Case, deploy: Deploy) -> None:
    assert KvCache(residual=0).refuse(case) is None
    assert KvCache(residual=9).refuse(case) == (
        "40 prompt and output tokens would all stay in 16 bit with residual=9 and group_size=32:"
        " nothing would change"
    )
    images = replace(case, model=models.resolve("digits-mlp"))
    assert "needs a decoder" in (KvCache().refuse(images) or "")

    class Other:
        lean = None

    gpt2 = replace(case, model=replace(case.model, id="other", family="gpt2"))
    with pytest.raises(Refused, match="other is gpt2 and runs through transformers"):
        KvCache().apply(deploy(Other(), gpt2)[0])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kv-cache:bits=3", "bits must be one of 2, 4, 8, not 3"),
        ("kv-cache:group_size=128", "group_size must be one of 32, 64, not 128"),
        ("kv-cache:residual=-1", "residual must lie between 0 and 4096"),
    ],
)
def test_settings_that_no_kernel_reads_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        techniques.parse(text)


def test_it_stands_between_the_weights_and_decoding() -> None:
    assert refuse(plan("weight-int4 kv-cache speculative")) is None
    assert "kv-cache must come before speculative" in (refuse(plan("speculative kv-cache")) or "")


def test_the_account_counts_codes_for_the_model_and_16_bit_for_its_draft() -> None:
    plain, coded = account(plan("speculative")), account(plan("kv-cache speculative"))
    own = 6 * 2 * (2 * 832 * 64 * 2 - KVFormat(4).head_bytes(64, 832))
    assert plain.kv - coded.kv == own
    assert (plain.weights, plain.workspace) == (coded.weights, coded.workspace)
    assert coded.kv_per_token == coded.kv / 832


def test_a_step_is_predicted_to_read_less_and_nothing_is_unknown() -> None:
    one, other = plan(""), plan("kv-cache:bits=2")
    assert not effects(other).unknown
    saved = decoder_work(one).step(1, 4, 800).bytes - decoder_work(other).step(1, 4, 800).bytes
    heads = 4 * 6 * 2
    assert saved == heads * (2 * 800 * 64 * 2 - KVFormat(2).read_bytes(64, 800))
    peaks = [
        next(found.value for found in predict(each) if found.metric == "peak_bytes")
        for each in (one, other)
    ]
    assert peaks[1] < peaks[0]


def test_a_loaded_decoder_reads_what_its_codes_take(tiny: Callable[..., Any]) -> None:
    engine = tiny("bf16")
    shape = plan("").case.model.decoder()
    plain = work_of(engine, shape)
    engine.cache_format = form = KVFormat(4, 32, 32)
    coded = work_of(engine, shape)
    assert coded.step_bytes(1, 20) == plain.step_bytes(1, 20)
    for context in (200, 1000):
        # On average over a block's filling, which `coded` is to all lengths of.
        read = [4 * form.read_bytes(16, context + more) for more in range(32)]
        mean = sum(read) / 32
        got = coded.step_bytes(1, context + 15.5) - coded.weights
        assert got == pytest.approx(mean, rel=1e-6)
