"""Train `digits-mlp` and `digits-cnn` on scikit-learn's bundled digits (UCI optical recognition,
1,797 images of 8 x 8).

    python -m core.catalogue.zoo.train_digits

Also writes digits.safetensors: the images and the fixed split, so that measuring needs no scikit-
learn. The split is by
seed; the held-out part is never trained on and never used to choose anything. Run by hand; nothing
at run time imports it.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from core.engine.classifier import DigitsCNN, DigitsMLP

ZOO = Path(__file__).parent
SEED = 20261121
HELD_OUT = 450
EPOCHS = 150


def augmented(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Images float [B, 1, 8, 8] with a little noise, every third batch shifted by up to one
    pixel.
    """
    if torch.randint(0, 3, (), generator=random) == 0:
        y, x = torch.randint(0, 3, (2,), generator=random).tolist()
        images = torch.nn.functional.pad(images, (1, 1, 1, 1))[:, :, y : y + 8, x : x + 8]
    return (images + 0.03 * torch.randn(images.shape, generator=random)).clamp(0, 1)


def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images classified correctly."""
    with torch.no_grad():
        return float((model(images).argmax(-1) == labels).float().mean())


def train(name: str, model: DigitsCNN | DigitsMLP, data: dict[str, torch.Tensor]) -> None:
    """Fit with AdamW and a cosine schedule, then write weights in 16 bit, config and card."""
    images, labels = data["images"].float()[:, None] / 16, data["labels"].long()
    train_part, held = data["train"].long(), data["held_out"].long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    random = torch.Generator().manual_seed(SEED)
    for _ in range(EPOCHS):
        order = train_part[torch.randperm(len(train_part), generator=random)]
        for chosen in order.split(64):
            loss = torch.nn.functional.cross_entropy(
                model(augmented(images[chosen], random)), labels[chosen], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    model.to(torch.bfloat16).to(torch.float32)
    folder = ZOO / name
    folder.mkdir(exist_ok=True)
    tensors = {
        key: value.to(torch.bfloat16).contiguous() for key, value in model.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps(model.config(), indent=2) + "\n", encoding="utf-8"
    )
    card = {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": "scikit-learn's digits: UCI optical recognition of handwritten digits,"
        " CC BY 4.0",
        "training_images": len(train_part),
        "held_out_images": len(held),
        "epochs": EPOCHS,
        "seed": SEED,
        "held_out_accuracy": round(accuracy(model, images[held], labels[held]), 4),
        "training_accuracy": round(accuracy(model, images[train_part], labels[train_part]), 4),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "script": "python -m core.catalogue.zoo.train_digits",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=2))


def main() -> None:
    """Write the data set, then train both classifiers."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    data = {
        "images": torch.from_numpy(digits.images.astype(np.uint8)),
        "labels": torch.from_numpy(digits.target.astype(np.uint8)),
        "train": torch.from_numpy(order[HELD_OUT:].astype(np.int16)),
        "held_out": torch.from_numpy(order[:HELD_OUT].astype(np.int16)),
    }
    (ZOO / "digits").mkdir(exist_ok=True)
    save_file(data, ZOO / "digits" / "digits.safetensors")
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    train("digits-mlp", DigitsMLP([64, 32]), data)
    torch.manual_seed(SEED)
    train("digits-cnn", DigitsCNN([16, 32]), data)


if __name__ == "__main__":
    main()
