"""Weight-only products of 4 and 8 bit against torch's packed ones, ONNX Runtime and bf16 matmul.

    python -m tests.evidence packed [--bits 4] [--rows 1 32] [--quick]

Weights come from memory: a sample goes once over copies that together are larger than the last
cache. Ours and ONNX Runtime's run over them as one program and one graph, torch's by calls from
Python. Samples are interleaved, each behind one of its own kind that is not timed (threads of
others that still spin have gone to sleep); a ratio is the median over them. With --threads 1 the
thread's processor time is counted, which other programs disturb less. ONNX Runtime (packages
onnxruntime and onnx) is left out where it is not installed. Ends with one sentence; exit 1 when a
figure is missed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from kernels.linear_lowbit import codes, cpu
from kernels.linear_lowbit.torch_packed import Int4Product, Int8Product
from kernels.program import Program
from kernels.stream import Arrays

SHAPES = (
    (576, 1536),
    (1536, 576),
    (960, 576),
    (3072, 576),
    (49152, 576),
    (896, 896),
    (4864, 896),
    (896, 4864),
    (2048, 2048),
    (8192, 2048),
    (4096, 4096),
    (4096, 14336),
)
QUICK = ((576, 1536), (3072, 576), (2048, 2048), (4096, 4096))
WORKING_SET = 96 << 20
SECONDS = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs="*", default=[1])
    parser.add_argument("--group", type=int, default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shape", type=int, nargs=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--affine", action="store_true")


def main(options: argparse.Namespace) -> int:
    """Print the table and the sentence."""
    torch.set_num_threads(options.threads)
    group = options.group or (32 if options.bits == 4 else 1 << 30)
    shapes = (tuple(options.shape),) if options.shape else QUICK if options.quick else SHAPES
    missed, ratios, many = [], [], []
    copy = copied(options.threads)
    print(f"{options.threads} threads; copy {copy:.1f} GB/s")
    for n, k in shapes:
        for rows in options.rows:
            times, size = case(n, k, rows, options.bits, group, not options.affine)
            own = times["own"]
            line = f"{n:>6} x {k:<6} M={rows:<4}"
            for name, found in times.items():
                ratio = statistics.median(a / b for a, b in zip(found, own, strict=True))
                line += f" {name} {statistics.median(found) * 1e6:8.1f} us ({ratio:5.2f})"
            rate = size / statistics.median(own) / 1e9
            print(f"{line}  {rate:5.1f} GB/s, {rate / copy:4.0%} of copy", flush=True)
            packed = [name for name in times if name.startswith(("torch-int", "onnx"))]
            if rows == 1 and packed:
                best = min(
                    statistics.median(a / b for a, b in zip(times[name], own, strict=True))
                    for name in packed
                )
                ratios.append(best)
                if best < 1 or (size >= 4 << 20 and rate < 0.7 * copy):
                    missed.append(f"{n} x {k}")
            dense = statistics.median(a / b for a, b in zip(times["bf16"], own, strict=True))
            if rows >= 32:
                many.append(dense)
                if dense < 0.8:
                    missed.append(f"{n} x {k} at {rows} rows")
    mean = statistics.geometric_mean(ratios) if ratios else float("nan")
    told = [f"{mean:.2f}x the best packed peer at 1 row"] if ratios else []
    told += [f"at worst {min(many):.2f}x torch bf16 at 32 rows and more"] if many else []
    if ratios and mean < 1.2:
        missed.append("the mean of 1.2")
    end = f"missed: {', '.join(missed)}" if missed else "every figure is reached"
    print(f"W{options.bits}: {'; '.join(told)}; {end}.")
    return 1 if missed else 0


def copied(threads: int) -> float:
    """GB/s of a large copy, reads and writes counted; best of several."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    arrays, best = Arrays(64 << 20), 0.0
    for _ in range(16):
        began = clock()
        moved = arrays.run("copy", 64 << 20, 1, threads)
        best = max(best, moved / (clock() - began) / 1e9)
    return best


def case(
    n: int, k: int, rows: int, bits: int, group: int, symmetric: bool
) -> tuple[dict[str, list[float]], int]:
    """Seconds for one product, by contender, and the bytes of our packed weight."""
    weight = torch.randn(n, k) / k**0.5
    form = codes.quantize(weight, bits, group, symmetric=symmetric)
    x, out = torch.randn(rows, k).bfloat16(), torch.empty(rows, n).bfloat16()
    size = cpu.lay_out(form).nbytes
    copies = max(2, -(-WORKING_SET // size))
    few = max(1, min(copies, int(2e9 // (2.0 * rows * n * k)))) if rows > 16 else copies
    contenders: dict[str, Callable[[], object]] = {"own": own(form, x, out, few)}
    if bits in (4, 8) and (bits == 4 or form.zero is None):
        kind = Int4Product if bits == 4 else Int8Product
        theirs = [kind(form, torch.bfloat16, None)]
        if bits == 4:
            theirs += [clone4(theirs[0]) for _ in range(few - 1)]
        else:
            theirs += [clone8(theirs[0]) for _ in range(few - 1)]
        contenders[f"torch-int{bits}"] = lambda: [one(x) for one in theirs]
    graph = onnx_graph(form, x, few) if rows <= 64 else None
    if graph is not None:
        contenders["onnx"] = graph
    dense_copies = max(1, min(few, (2 * WORKING_SET) // (2 * n * k) + 1))
    dense = [weight.bfloat16() for _ in range(dense_copies)]
    contenders["bf16"] = lambda: [torch.mm(x, one.T) for one in dense]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    counts = {name: dense_copies if name == "bf16" else few for name in contenders}
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for call in contenders.values():
        call()
    began = time.perf_counter()
    while len(times["own"]) < 7 or time.perf_counter() - began < SECONDS:
        for name, call in contenders.items():
            call()
            start = clock()
            call()
            times[name].append((clock() - start) / counts[name])
        if len(times["own"]) >= 5 and time.perf_counter() - began > 4 * SECONDS:
            break
    return times, size


def own(form: codes.LowBit, x: torch.Tensor, out: torch.Tensor, few: int) -> Callable[[], object]:
    """Our products with copies of the weight."""
    rows = x.shape[0]
    packed = [cpu.lay_out(form) for _ in range(few)]
    if rows > cpu.few_rows():
        return lambda: [cpu.matmul_many(x, one) for one in packed]
    return Program([cpu.Product(one).bind(x, out, rows) for one in packed])


def clone4(one: Int4Product) -> Int4Product:
    """A copy in memory of its own."""
    twin = object.__new__(Int4Product)
    twin.__dict__.update(one.__dict__)
    twin._packed, twin._scale_zero = one._packed.clone(), one._scale_zero.clone()
    return twin


def clone8(one: Int8Product) -> Int8Product:
    """A copy in memory of its own."""
    twin = object.__new__(Int8Product)
    twin.__dict__.update(one.__dict__)
    twin._codes = one._codes.clone()
    return twin


def onnx_graph(form: codes.LowBit, x: torch.Tensor, copies: int) -> Callable[[], object] | None:
    """MatMulNBits at accuracy level 4 over copies of the weight, one graph of one fp32 input."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    group = min(form.group_size, 128)
    if form.bits not in (4, 8) or form.k % group or (form.bits == 8 and group < 16):
        return None
    repeat = -(-form.k // group) // form.groups
    packed = form.codes.view(form.n, -1, group)
    if form.bits == 4:
        packed = packed[..., ::2] | packed[..., 1::2] << 4
    scale = form.scale.repeat_interleave(repeat, dim=1)
    nodes, weights, outputs = [], [], []
    for i in range(copies):
        names = [f"w{i}", f"s{i}"]
        # Equal weights would be kept once and stay in the cache.
        rolled = torch.roll(packed, (i % form.n, i // form.n), (0, 1))
        weights.append(numpy_helper.from_array(rolled.numpy(), names[0]))
        weights.append(numpy_helper.from_array(scale.numpy(), names[1]))
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                ["x", *names],
                [f"y{i}"],
                domain="com.microsoft",
                K=form.k,
                N=form.n,
                bits=form.bits,
                block_size=group,
                accuracy_level=4,
            )
        )
        outputs.append(
            helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [x.shape[0], form.n])
        )
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))
    graph = helper.make_graph(nodes, "copies", [given], outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_cpu_input("x", x.float().numpy())
    for i in range(copies):
        binding.bind_output(f"y{i}")
    return lambda: session.run_with_iobinding(binding)
