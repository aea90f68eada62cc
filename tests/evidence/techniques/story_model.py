"""A small language model of stories: text of another kind than the bundled Python source.

Stories follow a grammar over made-up words, so that there are as many as one likes. The model is
trained here in seconds, behind a start token that its tokenizer adds.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

NAMES = ("Mira", "Tobin", "Old Hanna", "Per", "the miller", "a small fox", "Anselm", "Grandmother")
VERBS = ("found", "lost", "carried", "painted", "hid", "mended", "sold", "dreamt of", "counted")
THINGS = ("lantern", "boat", "kettle", "letter", "blue stone", "ladder", "bell", "loaf of bread")
PLACES = ("by the river", "behind the mill", "in the attic", "under the old oak", "at the harbour")
WHENS = ("One morning", "Before the snow came", "Late that night", "On market day", "Once")
SAID = ("whispered", "shouted", "asked", "sighed", "answered with a smile")
ENDS = (
    "and nobody ever spoke of it again.", "so they walked home together.",
    "but the wind took it away.", "and the whole village laughed.", "until the bells rang at noon.",
)  # fmt: skip


def story(seed: int) -> str:
    """Some sentences in which a person keeps their thing."""
    draw = random.Random(seed)
    who, other = draw.sample(NAMES, 2)
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    told = [f"{draw.choice(WHENS)} {who} {draw.choice(VERBS)} a {thing} {place}"]
    for _ in range(draw.randint(3, 9)):
        told.append(
            draw.choice(
                (
                    f'"Is this my {thing}?" {draw.choice(SAID)} {other}',
                    f"{who} {draw.choice(VERBS)} the {thing} and {draw.choice(VERBS)} it {place}",
                    f"{other} had never {draw.choice(VERBS)} a {draw.choice(THINGS)} before",
                    f"There were {draw.randint(2, 40)} of them {draw.choice(PLACES)}",
                )
            )
        )
    return ". ".join(told) + f", {draw.choice(ENDS)}"


def write_stories(path: Path, seeds: range) -> Path:
    """A JSON lines file of stories."""
    path.write_text("\n".join(json.dumps({"text": story(seed)}) for seed in seeds))
    return path


def train(folder: Path, steps: int = 200, width: int = 96, layers: int = 2) -> float:
    """Write a Llama of stories into `folder`; its last training loss in nats per token."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    from core.engine.reference import TrainableDecoder
    from core.files.config import names
    from core.files.config.decoder_config import DecoderConfig

    texts = [story(seed) for seed in range(1_000_000, 1_004_000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<start>", "<end>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A", special_tokens=[("<start>", 0)]
    )
    config = DecoderConfig(
        family="llama", vocab_size=512, hidden_size=width, num_layers=layers, num_heads=4,
        num_kv_heads=2, head_dim=width // 4, intermediate_sizes=(2 * width,) * layers,
        max_positions=512, bos_token_id=0, eos_token_ids=(1,),
    )  # fmt: skip
    random_ = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=random_) * 0.05 if len(shape) > 1 else torch.ones(shape)
        for name, shape in names.expected(config).items()
    }
    stream = torch.tensor([t for text in texts for t in (*tokenizer.encode(text).ids, 1)])
    student = TrainableDecoder(config, tensors)
    loss = _learn(student, stream, steps, random_)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: one.bfloat16().contiguous() for name, one in student.tensors().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_hf()))
    tokenizer.save(str(folder / "tokenizer.json"))
    return loss


def _learn(student: Any, stream: torch.Tensor, steps: int, random_: torch.Generator) -> float:
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3, betas=(0.9, 0.95))
    lost = torch.zeros(())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        starts = torch.randint(0, len(stream) - 129, (4,), generator=random_).tolist()
        rows = torch.stack([stream[start : start + 129] for start in starts])
        lost = torch.nn.functional.cross_entropy(
            student(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()
        )
        optimizer.zero_grad()
        lost.backward()
        optimizer.step()
    return float(lost.detach())
