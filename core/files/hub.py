"""Owns fetching a model's folder from the hub, into the cache of the hub's own client."""

from __future__ import annotations

from pathlib import Path

from core.errors import BadInput
from core.files.formats.companions import SUFFIXES

# Folders inside a repository, that of chat templates (additional_chat_templates) left out.
ELSEWHERE = ["[!a]*/*", "a[!d]*/*", "ad[!d]*/*"]


def hub_folder(model_id: str, revision: str | None = None) -> Path:
    """Fetch a hub repository's safetensors and what belongs to them into the client's cache.

    Raises BadInput when there is no such repository or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            model_id,
            revision=revision,
            allow_patterns=["*.safetensors", *(f"*{suffix}" for suffix in SUFFIXES)],
            ignore_patterns=ELSEWHERE,
            etag_timeout=5,
        )
    except Exception as error:  # The client raises its HTTP library's errors, its own and OSError.
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise BadInput(
            f"the model {model_id!r} could not be fetched from the hub "
            f"({type(error).__name__}: {reason}); check the id and the connection, "
            "or give a local folder."
        ) from None
    return Path(folder)
