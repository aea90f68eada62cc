"""Cautions: what disturbed a trial, or what must be known before its numbers are believed.

A caution is a kind and a sentence. A note event carries both as fields; in the store, in
`Trial.notes` and in journals of older versions it is one line of the log, `caution KIND: sentence`.
Only this file writes and reads that line.
"""

from __future__ import annotations

from dataclasses import dataclass

_WORD = "caution"


@dataclass(frozen=True)
class CautionKind:
    """`disturbs_times` where timed numbers move from one minute to the next; `several` says it of
    several trials, after `2 of 3 trials ran`; `of_machine` where all trials on a machine share it.
    """

    several: str
    disturbs_times: bool = False
    of_machine: bool = False


_UNPROVEN = "treat speed as unproven"
KINDS = {
    "load": CautionKind(f"while other processes used the cores: {_UNPROVEN}", True),
    "stolen": CautionKind(
        f"while the host of this virtual machine took the cores: {_UNPROVEN}", True
    ),
    "throttled": CautionKind(f"while the processor was throttled: {_UNPROVEN}", True),
    "clock": CautionKind(f"while the clock changed: {_UNPROVEN}", True),
    "governor": CautionKind("with a clock governor that is not `performance`", of_machine=True),
    "fallback": CautionKind("without our kernels"),
    "uncaptured": CautionKind("with steps that were not captured as a CUDA graph"),
    "promise": CautionKind("and missed a limit that their settings promise"),
    "rounded": CautionKind("with weights that loading had rounded"),
}
# A kind that another version of Trimtab wrote.
_UNKNOWN = CautionKind("under conditions that disturb their numbers")


@dataclass(frozen=True)
class Caution:
    """One caution of one trial: a key of KINDS, and a sentence without its full stop."""

    kind: str
    text: str

    @property
    def about(self) -> CautionKind:
        """What is known of its kind."""
        return KINDS.get(self.kind, _UNKNOWN)

    @property
    def line(self) -> str:
        """The line of the trial's log that read_line() reads back."""
        return f"{_WORD} {self.kind}: {self.text}"

    def __str__(self) -> str:
        return self.line


Note = str | Caution


def read_line(line: str) -> Caution | None:
    """The caution that a line of a trial's log states; None for any other line."""
    head, _, text = line.partition(": ")
    word, _, kind = head.partition(" ")
    return Caution(kind, text) if word == _WORD and kind and text else None


def note_body(note: Note) -> dict[str, str]:
    """The fields of a note event: `text`, and `caution` with the kind of a caution."""
    if isinstance(note, Caution):
        return {"text": note.text, "caution": note.kind}
    return {"text": note}
