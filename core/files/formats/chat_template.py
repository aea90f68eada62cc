"""Owns where chat templates lie: in the files of a folder, as transformers looks for them, and in a
GGUF file's metadata, as gguf's own writer puts them there. It needs no torch.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

from core.files.formats.companions import TEMPLATES, TOKENIZER_CONFIG

FILE, DEFAULT = "chat_template.jinja", "default"
KEY, NAMES = "tokenizer.chat_template", "tokenizer.chat_templates"
# What older folders have for a processor's template.
LEGACY = "chat_template.json"


def templates(texts: Mapping[str, bytes]) -> dict[str, str]:
    """The chat templates by name of a folder's other files; the usual one is `default`.

    Files of templates come before tokenizer_config.json, which may hold one or a list of several.
    """
    by_name = {}
    for path, content in texts.items():
        if path == FILE:
            by_name[DEFAULT] = content.decode(errors="replace")
        elif path.startswith(f"{TEMPLATES}/"):
            name = path.removeprefix(f"{TEMPLATES}/").removesuffix(".jinja")
            by_name[name] = content.decode(errors="replace")
    for name in (TOKENIZER_CONFIG, LEGACY):
        if not by_name:
            by_name = _within(texts.get(name, b"{}"))
    return by_name


def to_gguf(by_name: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a GGUF file that says them."""
    known = set(string.ascii_letters + string.digits)
    others = {
        "".join(sign if sign in known else "_" for sign in name): text
        for name, text in by_name.items()
        if name != DEFAULT
    }
    metadata: dict[str, Any] = {f"{KEY}.{name}": text for name, text in others.items() if name}
    if metadata:
        metadata[NAMES] = [key.removeprefix(f"{KEY}.") for key in metadata]
    if DEFAULT in by_name:
        metadata[KEY] = by_name[DEFAULT]
    return metadata


def of_gguf(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a folder for what a GGUF file's metadata says."""
    contents = {}
    for key, text in metadata.items():
        name = key.removeprefix(f"{KEY}.")
        if not isinstance(text, str):
            continue
        if key == KEY:
            contents[FILE] = text.encode()
        elif name != key and name.isascii() and name.replace("_", "a").isalnum():
            contents[f"{TEMPLATES}/{name}.jinja"] = text.encode()
    return contents


def _within(content: bytes) -> dict[str, str]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    value = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(value, str):
        return {DEFAULT: value}
    if not isinstance(value, list):
        return {}
    pairs = [
        (entry.get("name"), entry.get("template")) for entry in value if isinstance(entry, dict)
    ]
    return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
