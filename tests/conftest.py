"""A synthetic study that any test may ask for: real types, made-up numbers, no torch. Nothing here
needs more than numpy and pytest, so that a box without the dashboard runs the tests of its GPU.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from core.measurement import Measurement, unavailable
from core.metrics import BY_NAME
from core.model import DecoderShape, Model
from core.plan import Case, Plan, Technique
from core.priorities import Limit, Priorities
from core.study import KernelCalls, Study, Trial
from core.target import Target
from core.techniques.batch.static import StaticBatch
from core.techniques.decode.speculative import Speculative
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.weight_int import WeightInt4, WeightInt8
from core.workload import Workload

# What only some tests import, and a box that has core and kernels alone may lack.
ABSENT = tuple(name for name in ("hypothesis", "scipy") if importlib.util.find_spec(name) is None)
if "hypothesis" not in ABSENT:
    import hypothesis

    # A machine that does other work as well draws examples slowly, and that says nothing of ours.
    hypothesis.settings.register_profile(
        "shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("shared")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out the files of tests that import what is absent here."""
    if not ABSENT or collection_path.suffix != ".py" or not collection_path.is_file():
        return None
    imports = re.findall(
        r"^(?:from|import) (\w+)", collection_path.read_text(encoding="utf-8"), re.MULTILINE
    )
    return True if set(imports) & set(ABSENT) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="also the tests marked slow, and on a GPU those for it"
    )


def pytest_configure(config: pytest.Config) -> None:
    """`--slow` takes away what pyproject.toml leaves out; -m of one's own is left alone."""
    if config.getoption("--slow") and config.option.markexpr == "not gpu and not slow":
        import torch

        config.option.markexpr = "" if torch.cuda.is_available() else "not gpu"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test for a GPU that was asked for by `-m gpu` is skipped where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("NOT YET RUN ON A GPU: needs a CUDA device")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, without a calibration; the compiled kernels in it are those
    of this machine, which take long to build."""
    from kernels import build

    compiled = build.cache_folder()
    compiled.mkdir(parents=True, exist_ok=True)
    folder = tmp_path / "cache"
    (folder / "trimtab").mkdir(parents=True)
    (folder / "trimtab" / "kernels").symlink_to(compiled)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


MODEL = Model(
    id="pycode",
    family="llama",
    source="bundled",
    revision="sha256:5d0c",
    shape=DecoderShape(256, 8, 8, 4, 32, 704, 8192, 1024),
    title="pycode, 10M parameters",
    origin="Python's standard library",
)
TARGET = Target(
    id="local",
    title="This machine: 2 cores",
    kind="cpu",
    place="local",
    memory_bytes=16_000_000_000,
    bandwidth=20e9,
    peaks=(("fp32", 2e11), ("bf16", 8e11)),
    local=True,
)
WORKLOAD = Workload("chat", "Chat", "text", prompt_tokens=128, output_tokens=64)
ENVIRONMENT = "env-7f3a"


@dataclass(frozen=True)
class Numbers:
    """What a synthetic trial came to; seconds, bytes, nats."""

    ttft_s: float
    tpot_s: float
    tokens_per_s: float
    model_bytes: float
    perplexity: float
    kl_nats: float
    agreement: float


BASELINE = Numbers(0.0412, 0.00431, 189.0, 18_940_928.0, 3.214, 0.0, 1.0)
CANDIDATES: tuple[tuple[tuple[Technique, ...], Numbers, str], ...] = (
    ((WeightInt8(),), Numbers(0.0337, 0.00252, 318.0, 10_122_240.0, 3.216, 0.0004, 0.991), "done"),
    ((WeightInt4(),), Numbers(0.0361, 0.00214, 362.0, 6_288_384.0, 3.402, 0.0412, 0.938), "done"),
    (
        (PruneMlpChannels(0.25),),
        Numbers(0.0355, 0.00371, 217.0, 16_237_568.0, 3.911, 0.2030, 0.861),
        "done",
    ),
    (
        (PruneMlpChannels(0.25), SoftTargets(steps=40)),
        Numbers(0.0354, 0.00370, 218.0, 16_237_568.0, 3.377, 0.0391, 0.935),
        "done",
    ),
    ((Speculative(),), Numbers(0.0438, 0.00288, 280.0, 20_912_640.0, 3.214, 0.0, 1.0), "done"),
    ((StaticBatch(8),), Numbers(0.1710, 0.00702, 961.0, 18_940_928.0, 3.214, 0.0, 1.0), "done"),
    (
        (PruneMlpChannels(0.25), SoftTargets(steps=40), WeightInt8(), StaticBatch(8)),
        Numbers(0.1330, 0.00412, 1544.0, 8_739_456.0, 3.381, 0.0402, 0.934),
        "done",
    ),
    (
        (WeightInt8(), StaticBatch(16)),
        Numbers(0.2210, 0.00500, 2100.0, 10_122_240.0, 3.216, 0.0004, 0.991),
        "projected",
    ),
    (
        (WeightInt4(group_size=64),),
        Numbers(0.0361, 0.00214, 362.0, 6_000_000.0, 3.5, 0.05, 0.93),
        "failed",
    ),
    (
        (WeightInt4(), Speculative(tokens=5)),
        Numbers(0.0361, 0.00214, 362.0, 6_000_000.0, 3.5, 0.05, 0.93),
        "refused",
    ),
)
REASONS = {
    "failed": "the worker was killed after 60 s: it used more than its 4.0 GB of memory.",
    "refused": "speculative: the draft pycode-small is not at hand.",
}


def sampled(name: str, value: float, seed: int, spread: float = 0.02, n: int = 20) -> Measurement:
    """`n` samples around `value`."""
    noise = np.random.default_rng(seed).normal(1.0, spread, n)
    samples = tuple(float(sample) for sample in value * noise)
    return Measurement(
        name,
        samples,
        BY_NAME[name].unit,
        "measured",
        "timed",
        ENVIRONMENT,
        "2026-11-21T10:00:00.000",
    )


def pooled(
    name: str, value: float, low: float, high: float, origin: str = "measured"
) -> Measurement:
    """A value with stated bounds."""
    method = "mean over 4,096 held-out tokens" if origin == "measured" else "roofline"
    return Measurement(
        name, (), BY_NAME[name].unit, origin, method, ENVIRONMENT, pooled=value, bounds=(low, high)
    )


def measured(numbers: Numbers, seed: int, baseline: bool) -> tuple[Measurement, ...]:
    """The measurements of a done trial."""
    nats = float(np.log(numbers.perplexity)) / 2.9
    found = [
        sampled("ttft_s", numbers.ttft_s, seed),
        sampled("tpot_s", numbers.tpot_s, seed + 1),
        sampled("latency_p95_s", numbers.ttft_s + 64 * numbers.tpot_s, seed + 2),
        sampled("tokens_per_s", numbers.tokens_per_s, seed + 3),
        Measurement("concurrency", (1.0,), "", "measured", "requests in flight", ENVIRONMENT),
        Measurement("model_bytes", (numbers.model_bytes,), "B", "measured", "summed", ENVIRONMENT),
        Measurement(
            "peak_bytes", (numbers.model_bytes + 31e6,), "B", "measured", "VmHWM", ENVIRONMENT
        ),
        unavailable("energy_j_per_token", "J", "RAPL is not readable by this user", ENVIRONMENT),
        pooled(
            "usd_per_mtok",
            25 / numbers.tokens_per_s,
            20 / numbers.tokens_per_s,
            32 / numbers.tokens_per_s,
            "projected",
        ),
        pooled(
            "perplexity", numbers.perplexity, numbers.perplexity * 0.97, numbers.perplexity * 1.03
        ),
        pooled("nats_per_byte", nats, nats * 0.97, nats * 1.03),
        sampled("prepare_s", 0.4, seed + 4, n=1),
    ]
    if not baseline:
        found += [
            pooled("kl_nats", numbers.kl_nats, numbers.kl_nats * 0.9, numbers.kl_nats * 1.1),
            pooled(
                "top1_agreement",
                numbers.agreement,
                numbers.agreement - 0.004,
                min(numbers.agreement + 0.004, 1.0),
            ),
        ]
    return tuple(found)


def projected(measurements: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """The same numbers as a projection: a point and a wide interval."""
    found = []
    for one in measurements:
        if one.value is None:
            found.append(one)
            continue
        bounds = (one.value * 0.6, one.value * 1.6)
        found.append(
            replace(
                one,
                samples=(),
                origin="projected",
                method="roofline",
                pooled=one.value,
                bounds=bounds,
            )
        )
    return tuple(found)


def make_trial(
    number: int, techniques: tuple[Technique, ...], numbers: Numbers, kind: str
) -> Trial:
    """Trial `number` of the synthetic study; `kind` is done, projected, failed or refused."""
    plan = Plan(Case(MODEL, TARGET, WORKLOAD), techniques)
    trial = Trial(f"t-{number:04d}", "s-synthetic", plan, attempt=1)
    if kind in REASONS:
        return replace(trial, state=kind, reason=REASONS[kind])
    names = [technique.name for technique in techniques]
    gemm = next((name for name in names if name.startswith("weight-")), "bf16")
    found = measured(numbers, 100 * number, baseline=not techniques)
    return replace(
        trial,
        state="done",
        started_at="2026-11-21T10:00:00.000",
        ended_at="2026-11-21T10:00:09.000",
        measurements=projected(found) if kind == "projected" else found,
        kernels=()
        if kind == "projected"
        else (
            KernelCalls("linear", f"torch.{gemm}", 3_648),
            KernelCalls("rms_norm", "reference", 1_088),
        ),
        notes=("loaded in 0.1 s",),
    )


@pytest.fixture
def synthetic_study() -> Study:
    """Baseline `t-0000`, 7 measured and 1 projected candidates, one failed trial, one refused."""
    trials = [make_trial(0, (), BASELINE, "done")]
    for number, (techniques, numbers, kind) in enumerate(CANDIDATES, start=1):
        trials.append(make_trial(number, techniques, numbers, kind))
    return Study(
        id="s-synthetic",
        case=Case(MODEL, TARGET, WORKLOAD),
        priorities=Priorities(limits=(Limit("kl_nats", "<=", 0.1),)),
        budget_s=300.0,
        created_at="2026-11-21T09:58:00.000",
        state="done",
        trials=tuple(trials),
    )


@pytest.fixture
def synthetic_trial() -> Callable[[tuple[Technique, ...], tuple[Measurement, ...]], Trial]:
    """Makes a done trial of the synthetic case from techniques and measurements."""
    made = 0

    def make(techniques: tuple[Technique, ...], measurements: tuple[Measurement, ...]) -> Trial:
        nonlocal made
        made += 1
        plan = Plan(Case(MODEL, TARGET, WORKLOAD), techniques)
        return Trial(
            f"t-made-{made}", "s-made", plan, state="done", attempt=1, measurements=measurements
        )

    return make
