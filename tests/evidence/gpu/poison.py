"""A plugin of pytest: after a test that failed because the device does nothing for its process any
more, as after an illegal access, the process ends with BROKEN, so that another can go on.
"""

from __future__ import annotations

import pytest

BROKEN = 70
_failed: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that failed."""
    if report.failed:
        _failed.append(report.nodeid)


def pytest_runtest_logfinish(nodeid: str) -> None:
    """End the process where nothing else could pass."""
    if nodeid in _failed and not alive():
        pytest.exit("the device does nothing for this process any more", returncode=BROKEN)


def alive() -> bool:
    """Whether the device still works."""
    import torch

    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
