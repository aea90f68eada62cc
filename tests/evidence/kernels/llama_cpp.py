"""Our decode against llama.cpp's llama-bench, in turns, on the shape of SmolLM2-135M.

    python -m tests.evidence llama-cpp [--binary LLAMA_BENCH] [--turns 7] [--threads 2]

Ours in bf16, int8 (a scale a row) and int4 (a scale for 32, symmetric) stand against F16, Q8_0 and
Q4_0; every matrix is in the format, the output matrix too. Random weights, batch 1, 64 tokens
behind a prompt of 128, whose own speed is printed beside it. Without --binary, llama-bench is built
first, from the source package of llama-cpp-python (pip), with -DGGML_NATIVE=ON, which takes 15
minutes and needs cmake and a C++ compiler; --keep FOLDER keeps it. Needs the package gguf. Ends
with one sentence; exit 1 when a format is not 1.2 times as fast.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.engine.bench import Lean
from core.engine.decoder import MATRICES, Decoder
from core.engine.linear import Linear
from core.engine.load.load import SHAPE_SEED, random_engine, shape_config
from core.files.config.decoder_config import DecoderConfig
from kernels.bench.limits import interval
from kernels.linear_lowbit import LowBitWeight, quantize

SHAPE = "shape:smollm2-135m"
FORMATS = {"bf16": "F16", "int8": "Q8_0", "int4-g32": "Q4_0"}
WANTED = 1.2
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_APP=OFF",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--binary", type=Path, help="a llama-bench that is already built")
    parser.add_argument("--keep", type=Path, help="build here and keep it")
    parser.add_argument("--jobs", type=int, default=1, help="compilers at a time")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)


def main(options: argparse.Namespace) -> int:
    """Build where needed, measure in turns, print."""
    torch.set_num_threads(options.threads)
    config = shape_config(SHAPE)
    said, missed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        binary = options.binary or build(options.keep or folder / "build", folder, options.jobs)
        for ours in options.formats:
            theirs = FORMATS[ours]
            file = folder / f"{theirs}.gguf"
            write_gguf(file, config, theirs)
            ratio, low, high = turns(binary, file, config, ours, options)
            file.unlink()
            said.append(f"{ours} {ratio:.2f}x [{low:.2f}, {high:.2f}] of {theirs}")
            if ratio < WANTED:
                missed.append(ours)
    end = f"under {WANTED}x: {', '.join(missed)}" if missed else f"all at least {WANTED}x"
    print(f"Decode against llama.cpp with {options.threads} threads: {'; '.join(said)}; {end}.")
    return 1 if missed else 0


def turns(
    binary: Path, file: Path, config: DecoderConfig, format_: str, options: argparse.Namespace
) -> tuple[float, float, float]:
    """The ratio of decode speeds, ours over theirs, with its interval; prints both."""
    decoder = engine(config, format_)
    seeded = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, config.vocab_size, (1, options.prompt), generator=seeded)
    lean = Lean(decoder, prompt, options.tokens)
    lean.decode(8)
    llama(binary, file, options)
    decode, prefill = [], []
    for _ in range(options.turns):
        decode_one, prefill_one = llama(binary, file, options)
        decode.append((lean.decode(options.tokens), decode_one))
        prefill.append((prefill_speed(decoder, prompt), prefill_one))
    ratio = interval([own / other for own, other in decode])
    for what, pairs in (("decode", decode), (f"prompt of {options.prompt}", prefill)):
        own, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        found = interval([a / b for a, b in pairs])
        print(
            f"{what}, {format_} against {FORMATS[format_]}: {own:.1f} and {other:.1f} tokens/s, "
            f"ratio {found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}], {len(pairs)} turns",
            flush=True,
        )
    print(
        f"    {decoder.weight_bytes() / 1e6:.0f} MB of weights here, "
        f"{file.stat().st_size / 1e6:.0f} MB there",
        flush=True,
    )
    return ratio


def prefill_speed(decoder: Decoder, prompt: torch.Tensor) -> float:
    """Prompt tokens a second, into an empty cache."""
    cache = decoder.new_cache(1, prompt.shape[1] + 1)
    began = time.perf_counter()
    decoder.forward(prompt, cache, last_only=True)
    return prompt.shape[1] / (time.perf_counter() - began)


def engine(config: DecoderConfig, format_: str) -> Decoder:
    """The lean decoder with random weights, each matrix in the format."""
    decoder = random_engine(config, "bf16", SHAPE_SEED)
    if format_ == "bf16":
        return decoder
    bits, group = (4, 32) if format_ == "int4-g32" else (8, 1 << 30)

    def packed(linear: Linear) -> Linear:
        form = quantize(linear.dense(), bits, group)
        return Linear.from_kernel(LowBitWeight(form, linear.bias, linear.dtype))

    for layer in decoder.layers:
        for name in MATRICES:
            setattr(layer, name, packed(getattr(layer, name)))
    decoder.head = packed(decoder.head)
    return decoder


def llama(binary: Path, file: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Tokens a second of decode behind the prompt, and of the prompt itself, by llama-bench."""
    command = [str(binary), "-m", str(file), "-t", str(options.threads), "-r", "1", "-o", "json"]
    command += ["-p", str(options.prompt), "-n", str(options.tokens), "-d", f"0,{options.prompt}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{binary} failed: {done.stderr.strip().splitlines()[-1]}")
    decode = prefill = 0.0
    for one in json.loads(done.stdout):
        if one["n_gen"] and one["n_depth"]:
            decode = one["avg_ts"]
        if one["n_prompt"] and not one["n_depth"]:
            prefill = one["avg_ts"]
    return decode, prefill


def write_gguf(file: Path, config: DecoderConfig, format_: str) -> None:
    """A llama file of the shape: random weights in `format_`, no vocabulary."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize as rounded

    kind = GGMLQuantizationType[format_]
    generator = np.random.default_rng(0)
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(2048)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_sizes[0])
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    def matrix(name: str, rows: int, columns: int) -> None:
        weight = generator.standard_normal((rows, columns), dtype=np.float32) * 0.02
        if format_ == "F16":
            writer.add_tensor(name, weight.astype(np.float16))
        else:
            writer.add_tensor(name, rounded(weight, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(config.hidden_size, np.float32))

    hidden, kv = config.hidden_size, config.num_kv_heads * config.head_dim
    wide = config.intermediate_sizes[0]
    matrix("token_embd.weight", config.vocab_size, hidden)
    norm("output_norm.weight")
    for i in range(config.num_layers):
        at = f"blk.{i}."
        norm(f"{at}attn_norm.weight")
        norm(f"{at}ffn_norm.weight")
        matrix(f"{at}attn_q.weight", config.num_heads * config.head_dim, hidden)
        matrix(f"{at}attn_k.weight", kv, hidden)
        matrix(f"{at}attn_v.weight", kv, hidden)
        matrix(f"{at}attn_output.weight", hidden, config.num_heads * config.head_dim)
        matrix(f"{at}ffn_gate.weight", wide, hidden)
        matrix(f"{at}ffn_up.weight", wide, hidden)
        matrix(f"{at}ffn_down.weight", hidden, wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def build(folder: Path, temporary: Path, jobs: int) -> Path:
    """llama-bench, compiled for this processor. SystemExit with a sentence when it cannot be."""
    binary = folder / "bin/llama-bench"
    if binary.exists():
        return binary
    if shutil.which("cmake") is None:
        raise SystemExit("cmake is not there; install it (Debian: cmake; PyPI: cmake).")
    print("building llama-bench", file=sys.stderr, flush=True)
    step([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
          "-d", str(temporary), "llama-cpp-python"])  # fmt: skip
    (package,) = temporary.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(package) as archive:
        archive.extractall(temporary, filter="data")
    (source,) = temporary.glob("llama_cpp_python-*/vendor/llama.cpp")
    quietly = ["nice", "-n", "19"]
    step([*quietly, "cmake", "-S", str(source), "-B", str(folder), *OPTIONS])
    step([*quietly, "cmake", "--build", str(folder), "--target", "llama-bench", f"-j{jobs}"])
    return binary


def step(command: list[Any]) -> None:
    """Run it; SystemExit with its last line when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        last = done.stdout.strip().splitlines() or [""]
        raise SystemExit(f"{' '.join(command[:4])} ... failed: {last[-1]}")
