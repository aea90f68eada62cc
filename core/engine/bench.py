"""Times the lean decoder's decode step against transformers' own, on the same weights in one run.

    python -m core.engine.bench --shape smollm2-135m --tokens 32

Both decode greedily behind the same prompt, in turns (A B A B), bf16, batch 1, on the CPU or with
`--device cuda` on a GPU, whose ids stay there until a turn ends. The ratio is that of the speeds of
neighbouring turns; its interval is a bootstrap over the turns. The last line on stdout is one JSON
document. It refuses to time engines whose logits disagree.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.engine.load.load import SHAPE_SEED, random_engine, shape_config
from core.engine.transformers_engine import cache_name
from core.errors import TrimtabError
from core.files.config.decoder_config import DecoderConfig

if TYPE_CHECKING:
    from core.engine.decoder import Decoder

AGREEMENT = 0.05


def transformers_twin(config: DecoderConfig, decoder: Decoder) -> Any:
    """A transformers model with the decoder's weights, in its dtype and default attention."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = config.to_hf()
    settings = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(settings, dtype=decoder.dtype).eval()
    model.to(decoder.device)
    model.load_state_dict(decoder.export_tensors(), strict=False)
    model.tie_weights()
    return model


class Lean:
    """The lean decoder behind a prompt."""

    def __init__(self, decoder: Decoder, prompt: torch.Tensor, tokens: int) -> None:
        self.decoder = decoder
        self.length = prompt.shape[1]
        self.cache = decoder.new_cache(1, self.length + tokens)
        self.logits = decoder.forward(prompt, self.cache, last_only=True)

    def decode(self, tokens: int) -> float:
        """Tokens per second over `tokens` greedy steps behind the prompt."""
        self.cache.truncate(self.length)
        ids = self.logits[:, -1].argmax(-1, keepdim=True)
        synchronize(ids)
        began = time.perf_counter()
        for _ in range(tokens):
            ids = self.decoder.choose(ids, self.cache, last_only=True)
        synchronize(ids)
        return tokens / (time.perf_counter() - began)


class Transformers:
    """transformers' eager decode with its cache behind the same prompt."""

    def __init__(self, model: Any, prompt: torch.Tensor) -> None:
        from transformers import DynamicCache

        self.model = model
        self.length = prompt.shape[1]
        self.cache = DynamicCache(config=model.config)
        self.past = {cache_name(type(model)): self.cache}
        with torch.inference_mode():
            out = model(prompt, use_cache=True, logits_to_keep=1, **self.past)
        self.logits = out.logits.float()

    @torch.inference_mode()
    def decode(self, tokens: int) -> float:
        """Tokens per second over `tokens` greedy steps behind the prompt."""
        surplus = self.cache.get_seq_length() - self.length
        if surplus:
            self.cache.crop(-surplus)
        ids = self.logits[:, -1].argmax(-1, keepdim=True)
        synchronize(ids)
        began = time.perf_counter()
        for _ in range(tokens):
            out = self.model(ids, use_cache=True, logits_to_keep=1, **self.past)
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
        synchronize(ids)
        return tokens / (time.perf_counter() - began)


def synchronize(tensor: torch.Tensor) -> None:
    """Wait for the device on which a tensor is computed."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def run(
    shape: str, prompt_tokens: int, tokens: int, repeats: int, device: str = "cpu"
) -> dict[str, Any]:
    """Measure and return the document that `main` prints."""
    config = shape_config(f"shape:{shape}")
    decoder = random_engine(config, "bf16", SHAPE_SEED, device)
    prompt = torch.randint(
        0, config.vocab_size, (1, prompt_tokens), generator=torch.Generator().manual_seed(0)
    ).to(device)
    lean = Lean(decoder, prompt, tokens)
    theirs = Transformers(transformers_twin(config, decoder), prompt)
    error = float((lean.logits - theirs.logits).abs().max() / theirs.logits.abs().max())
    if error > AGREEMENT:
        raise TrimtabError(f"the logits differ by {error:.1%} of the largest; nothing was timed.")
    for engine in (lean, theirs):
        engine.decode(4)
    pairs = np.array([(lean.decode(tokens), theirs.decode(tokens)) for _ in range(repeats)])
    ratios = pairs[:, 0] / pairs[:, 1]
    draws = np.random.default_rng(0).choice(ratios, (4000, repeats))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    speeds = np.median(pairs, axis=0)
    return {
        "shape": shape,
        "device": device,
        "prompt_tokens": prompt_tokens,
        "tokens": tokens,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "lean_tokens_per_s": round(float(speeds[0]), 2),
        "transformers_tokens_per_s": round(float(speeds[1]), 2),
        "lean_weight_gb_per_s": round(float(speeds[0]) * decoder.weight_bytes() / 1e9, 2),
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_low": round(float(low), 3),
        "ratio_high": round(float(high), 3),
        "ratios": [round(float(ratio), 3) for ratio in ratios],
        "logits_difference": round(error, 5),
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Lean decode speed against transformers' own.")
    parser.add_argument("--shape", default="smollm2-135m", help="a published shape (shape:NAME)")
    parser.add_argument("--prompt", type=int, default=128, help="prompt tokens")
    parser.add_argument("--tokens", type=int, default=32, help="decoded tokens in each turn")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each engine")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    if min(chosen.prompt, chosen.tokens, chosen.repeats) < 1:
        parser.error("--prompt, --tokens and --repeats must be 1 or more")
    try:
        row = run(chosen.shape, chosen.prompt, chosen.tokens, chosen.repeats, chosen.device)
    except TrimtabError as error:
        parser.error(str(error))
    print(
        f"{row['shape']}, bf16, batch 1, {row['prompt_tokens']} prompt tokens: "
        f"lean {row['lean_tokens_per_s']} tokens/s, "
        f"transformers {row['transformers_tokens_per_s']} tokens/s"
    )
    print(
        f"ratio {row['ratio']} (95 % interval {row['ratio_low']} to {row['ratio_high']}, "
        f"{row['repeats']} turns); the lean decoder reads {row['lean_weight_gb_per_s']} GB/s "
        "of weights"
    )
    print(json.dumps(row))


if __name__ == "__main__":
    main()
