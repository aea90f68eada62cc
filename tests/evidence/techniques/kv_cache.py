"""What a KV cache in codes costs and saves on pycode: KL to the 16-bit cache on held-out text, read
at once and token by token, bytes of a cache of 1,024 tokens.

    python -m tests.evidence kv-cache [--windows 6]

The last line is the figure; exit 1 when 8 bit costs more than 0.001 nats or 4 bit more than 0.02,
when fewer bits do not cost more, or when the two ways of reading differ by more than a tenth.
"""

from __future__ import annotations

import argparse

import torch

from core.catalogue import models
from core.data.passages import held_out_windows
from core.engine.decoder import Decoder
from core.engine.load.load import load_engine, load_tokenizer
from kernels.kv_codes import BITS, KVFormat

MODEL = "pycode"
LENGTH = 512
TOKENS = 1024


def log_probabilities(engine: Decoder, ids: torch.Tensor, each: int) -> torch.Tensor:
    """Of every next token, reading `each` tokens at a time."""
    cache = engine.new_cache(*ids.shape)
    parts = [engine.forward(part, cache) for part in ids.split(each, dim=1)]
    return torch.log_softmax(torch.cat(parts, dim=1), dim=-1).double()


def divergence(wanted: torch.Tensor, mine: torch.Tensor) -> float:
    """Mean KL in nats."""
    return float((wanted.exp() * (wanted - mine)).sum(-1).mean())


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=6)


def main(options: argparse.Namespace) -> int:
    model = models.resolve(MODEL)
    text = held_out_windows(load_tokenizer(model), (0,), options.windows, LENGTH)
    ids = torch.stack([one.ids for one in text.passages])
    loaded = load_engine(model)
    # In float32 nothing but codes is rounded.
    engine = Decoder.from_tensors(loaded.config, loaded.export_tensors(), "fp32")
    plain = log_probabilities(engine, ids, LENGTH)
    size = loaded.new_cache(1, TOKENS).nbytes
    costs: list[float] = []
    words, apart = [], 0.0
    for bits in BITS:
        engine.cache_format = loaded.cache_format = KVFormat(bits)
        at_once = divergence(plain, log_probabilities(engine, ids, LENGTH))
        steps = divergence(plain, log_probabilities(engine, ids, 1))
        apart = max(apart, abs(at_once / steps - 1))
        saved = size / loaded.new_cache(1, TOKENS).nbytes
        words.append(f"{bits} bit {at_once:.2g} nats at 1/{saved:.1f} of the bytes")
        costs.append(at_once)
        print(f"{bits} bit: {at_once:.6f} nats at once, {steps:.6f} token by token")
    good = costs[0] <= 1e-3 and costs[1] <= 0.02 and costs == sorted(costs) and apart <= 0.1
    print(
        f"{'' if good else 'MISSED: '}KV cache of {MODEL} on {ids.numel():,} held-out tokens:"
        f" {'; '.join(words)}; at once and token by token within {apart:.1%}."
    )
    return 0 if good else 1
