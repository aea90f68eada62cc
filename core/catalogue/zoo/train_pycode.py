"""Train `pycode` and `pycode-small`: byte-level BPE and a Llama-style decoder on Python source.

    python -m core.catalogue.zoo.train_pycode tokenizer
    python -m core.catalogue.zoo.train_pycode train --model pycode --steps 4000
    python -m core.catalogue.zoo.train_pycode export --model pycode

Data: the running Python's standard library without the held-out modules (corpus.HELD_OUT), mixed
with the Python sources of the installed dependencies, without files that copy held-out lines.
Matrices are trained by Muon (Jordan et al. 2024), the rest by AdamW, on a warm-up / constant /
linear-decay schedule, from one seed; the first half of the steps sees windows of half the context.
`train` writes a checkpoint every 100 steps and goes on from the last one. This script is run by
hand; nothing at run time imports it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from core.catalogue.zoo import corpus

ZOO = Path(__file__).parent
VOCABULARY = 4096
END_OF_TEXT = "<|endoftext|>"
SEED = 20261121
CONTEXT = 1024
TOKENS_A_STEP = {"pycode": 4096, "pycode-small": 8192}
QUERY_BLOCK = 128  # queries a block of the training attention
SHAPES = {
    "pycode": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 896,
    },
    "pycode-small": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 352,
    },
}


def dependency_set(limit_bytes: int) -> corpus.TextSet:
    """Python sources of the installed packages, shuffled by seed, without copies of held-out
    modules.
    """
    root = corpus.stdlib_root() / "site-packages"
    if sys.prefix != sys.base_prefix:
        root = Path(metadata.distribution("torch").locate_file(""))  # type: ignore[arg-type]
    names = corpus.python_files(
        root, frozenset({"test", "tests", "testing", "__pycache__", "generated"})
    )
    held = corpus.held_out_set()
    lines = frozenset(line for text in held.texts for line in corpus.long_lines(text))
    kept, texts, total = [], [], 0
    for index in np.random.default_rng(SEED).permutation(len(names)):
        if total >= limit_bytes:
            break
        documents = corpus.read_set(root, [names[index]])
        if not documents.texts or corpus.shares_lines(documents.texts[0], lines):
            continue
        kept.append(names[index])
        texts.append(documents.texts[0])
        total += len(documents.texts[0])
    return corpus.TextSet(tuple(kept), tuple(texts))


def train_tokenizer() -> None:
    """Write pycode/tokenizer.json (and the sibling's copy), trained on the library's training
    part.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.training_set().texts, trainer)
    for name in SHAPES:
        (ZOO / name).mkdir(exist_ok=True)
        tokenizer.save(str(ZOO / name / "tokenizer.json"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "model_max_length": CONTEXT,
        }
        (ZOO / name / "tokenizer_config.json").write_text(
            json.dumps(settings, indent=2) + "\n", encoding="utf-8"
        )


def encode(texts: corpus.TextSet) -> np.ndarray:
    """uint16 [tokens]: each document behind one end-of-text token."""
    tokenizer = Tokenizer.from_file(str(ZOO / "pycode" / "tokenizer.json"))
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(list(texts.texts)):
        ids.append(0)
        ids.extend(encoding.ids)
    return np.array(ids, dtype=np.uint16)


def build(name: str) -> LlamaForCausalLM:
    """The untrained model; tied embeddings, rotary base 10,000."""
    settings: dict[str, Any] = {**SHAPES[name]}
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        **settings,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # every block starts as the identity
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


def blocked_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention by blocks of queries, each against the keys up to its own end.

    query [rows, heads, T, d], key and value [rows, groups, T, d]; returns [rows, T, heads, d].
    Plain bf16 matrix products: on CPU 1.6 times the speed of torch's fused kernel forward and
    backward at T = 1024, because that kernel's backward does not use the bf16 instructions.
    """
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    per_group = heads // groups
    query = (query * scaling).bfloat16().view(rows, groups, per_group, length, width)
    key, value = key.bfloat16(), value.bfloat16()
    blocks = []
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        asked = query[:, :, :, start:end].reshape(rows * groups, -1, width)
        keys = key[:, :, :end].reshape(rows * groups, end, width)
        values = value[:, :, :end].reshape(rows * groups, end, width)
        scores = torch.bmm(asked, keys.transpose(1, 2)).view(-1, per_group, end - start, end)
        future = torch.ones(end - start, end, dtype=torch.bool).tril(start).logical_not()
        weights = scores.float().masked_fill(future, -1e30).softmax(-1).bfloat16()
        mixed = torch.bmm(weights.view(rows * groups, -1, end), values)
        blocks.append(mixed.view(rows, groups, per_group, end - start, width))
    return torch.cat(blocks, 3).reshape(rows, heads, length, width).transpose(1, 2), None


def learning_rate(step: int, steps: int) -> float:
    """Share of the peak rate: 100 steps up, constant, the last half linearly to zero."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.5 * steps))


def held_out_loss(model: torch.nn.Module, windows: torch.Tensor) -> float:
    """Mean nats per token over `windows` int64 [n, CONTEXT + 1]."""
    model.eval()
    total = 0.0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for window in windows:
            logits = model(input_ids=window[None, :-1]).logits[0].float()
            total += torch.nn.functional.cross_entropy(logits, window[1:]).item()
    model.train()
    return total / len(windows)


def train(name: str, steps: int, work: Path, library_share: float, peak: float) -> None:
    """Train `name` for `steps` steps of TOKENS_A_STEP[name] tokens; checkpoints in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    cached = work / "tokens.npz"
    if not cached.exists():
        library, dependencies = corpus.training_set(), dependency_set(60_000_000)
        np.savez(
            cached,
            library=encode(library),
            dependencies=encode(dependencies),
            held=encode(corpus.held_out_set()),
            facts=json.dumps(
                {
                    "library_bytes": library.bytes,
                    "library_digest": library.digest,
                    "dependency_bytes": dependencies.bytes,
                    "dependency_digest": dependencies.digest,
                    "dependency_files": len(dependencies.names),
                }
            ),
        )
    tokens = np.load(cached)
    library, dependencies, held = tokens["library"], tokens["dependencies"], tokens["held"]
    print(
        f"tokens: library {len(library):,}, dependencies {len(dependencies):,},"
        f" held out {len(held):,}",
        flush=True,
    )
    starts = np.linspace(0, len(held) - CONTEXT - 1, 24).astype(int)
    windows = torch.stack(
        [torch.from_numpy(held[s : s + CONTEXT + 1].astype(np.int64)) for s in starts]
    )

    model = build(name)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(
            matrices, lr=peak, weight_decay=0.01, momentum=0.95, adjust_lr_fn="original"
        ),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    peaks = [peak, 3e-3]
    first = 0
    checkpoint = work / f"{name}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
    print(
        f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters,"
        f" from step {first} to {steps}",
        flush=True,
    )
    AttentionInterface.register("blocked", blocked_attention)
    model.set_attn_implementation("blocked")
    forward = torch.compile(model, dynamic=False)
    began = time.time()
    for step in range(first, steps):
        share = learning_rate(step, steps)
        for optimizer, rate in zip(optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        draw = np.random.default_rng((SEED, step))
        window = CONTEXT // 2 if step < steps // 2 else CONTEXT
        rows = []
        for _ in range(TOKENS_A_STEP[name] // window):
            source = library if draw.random() < library_share else dependencies
            start = int(draw.integers(0, len(source) - window - 1))
            rows.append(source[start : start + window + 1].astype(np.int64))
        batch = torch.from_numpy(np.stack(rows))
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), batch[:, 1:].flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0:
            speed = (step - first + 1) * TOKENS_A_STEP[name] / (time.time() - began)
            print(f"step {step} loss {loss.item():.4f} tokens/s {speed:.0f}", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"step {step + 1} held-out {held_out_loss(model, windows):.4f}", flush=True)
            state = {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizers],
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)


def export(name: str, work: Path, settings: dict[str, object]) -> None:
    """Write bf16 weights, config and card of a finished checkpoint into the zoo."""
    state = torch.load(work / f"{name}.pt", weights_only=True)
    model = build(name)
    model.load_state_dict(state["model"])
    model.to(torch.bfloat16)  # type: ignore[arg-type]
    folder = ZOO / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = np.load(work / "tokens.npz")
    held = torch.from_numpy(tokens["held"].astype(np.int64))
    model.eval()
    nats, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(held) - 1, CONTEXT):
            window = held[start : start + CONTEXT + 1]
            logits = model(input_ids=window[None, :-1]).logits[0].float()
            nats += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
            count += len(window) - 1
    texts = corpus.held_out_set()
    card = {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": "the Python standard library without the held-out modules, and the Python"
        " sources of the installed dependencies",
        "data": json.loads(str(tokens["facts"])),
        "data_licence": "trained on PSF-2.0 and permissively licensed sources; the text itself"
        " is not distributed here",
        "seed": SEED,
        "steps": state["step"],
        "tokens_seen": state["step"] * TOKENS_A_STEP[name],
        **settings,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "held_out_digest": texts.digest,
        "held_out_bytes": texts.bytes,
        "held_out_tokens": count,
        "held_out_nats_per_token": round(nats / count, 4),
        "held_out_perplexity": round(math.exp(nats / count), 3),
        "held_out_nats_per_byte": round(nats / texts.bytes, 4),
        "evaluation_context": CONTEXT,
        "script": "python -m core.catalogue.zoo.train_pycode",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=2))


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", choices=("tokenizer", "train", "export"))
    parser.add_argument("--model", choices=sorted(SHAPES), default="pycode")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--work", type=Path, default=Path("zoo-work"))
    parser.add_argument("--library-share", type=float, default=0.55)
    parser.add_argument("--peak", type=float, default=0.02)
    arguments = parser.parse_args()
    if arguments.stage == "tokenizer":
        train_tokenizer()
    elif arguments.stage == "train":
        train(
            arguments.model,
            arguments.steps,
            arguments.work,
            arguments.library_share,
            arguments.peak,
        )
    else:
        export(
            arguments.model,
            arguments.work,
            {"library_share": arguments.library_share, "peak_rate_muon": arguments.peak},
        )


if __name__ == "__main__":
    main()
