"""Which study waits for which device."""

from __future__ import annotations

from app.jobs.queues import Queues


def test_a_study_goes_where_fewest_wait_and_each_device_runs_one() -> None:
    queues = Queues()
    keys = ("cuda:0", "cuda:1")
    assert [queues.add(name, keys) for name in "abcd"] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert queues.add("c", keys) == "cuda:0"
    assert (queues.take("cuda:0"), queues.take("cuda:1")) == ("a", "b")
    assert queues.active() == ("a", "b", "c", "d")
    assert [queues.ahead(name) for name in "abcdx"] == [0, 0, 1, 1, 0]
    assert queues.remove("c")
    assert not queues.remove("a")
    queues.done("cuda:0")
    queues.wait("a")
    queues.close()
    assert queues.take("cuda:1") is None
