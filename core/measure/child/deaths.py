"""Signals that end a process, in words."""

from __future__ import annotations

import signal

_DEATHS = {
    "SIGKILL": "it was killed from outside",
    "SIGSEGV": "a kernel touched memory that is not its own",
    "SIGBUS": "it touched memory whose file has shrunk or is damaged",
    "SIGABRT": "a library gave up",
    "SIGILL": "a kernel used an instruction that this processor lacks",
    "SIGFPE": "a kernel divided by zero",
    "SIGXCPU": "its limit of processor time was reached",
    "SIGXFSZ": "it wrote a larger file than it may",
    "SIGTERM": "somebody asked it to end",
}


def signal_name(number: int) -> str:
    """The name of a signal, `SIGKILL`; `signal 77` for one that has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def said_of(name: str) -> str:
    """What a death by the signal of this name most likely means."""
    return _DEATHS.get(name, "no event says why")
