"""All tensor work on one thread: order, results, exceptions, number of threads."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from paretune.serve.tensor_thread import _THREAD, on_tensor_thread

SOON = 20.0


def test_work_of_all_threads_runs_on_one_thread() -> None:
    """Work of two callers, and work that calls for more work, has one and the same thread, and not the caller's."""
    found: set[int] = set()

    def work() -> int:
        found.add(threading.get_ident())
        return on_tensor_thread(threading.get_ident)

    threads = [threading.Thread(target=lambda: found.add(on_tensor_thread(work))) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(SOON)
    assert len(found) == 1
    assert threading.get_ident() not in found


def test_first_come_first_served() -> None:
    """A caller that comes again and again does not overtake one that waits."""
    order: list[str] = []
    running, go_on = threading.Event(), threading.Event()

    def first() -> None:
        running.set()
        assert go_on.wait(SOON)

    holder = threading.Thread(target=lambda: on_tensor_thread(first))
    holder.start()
    assert running.wait(SOON)
    loader = threading.Thread(target=lambda: on_tensor_thread(lambda: order.append("loader")))
    loader.start()
    while not _THREAD._waiting.qsize():  # the loader is in the queue
        time.sleep(0.001)
    threading.Timer(0.05, go_on.set).start()
    for _ in range(3):
        on_tensor_thread(lambda: order.append("engine"))
    holder.join(SOON)
    loader.join(SOON)
    assert order == ["loader", "engine", "engine", "engine"]


def test_an_exception_is_the_callers() -> None:
    """It reaches the caller, and the next work runs."""
    with pytest.raises(ZeroDivisionError):
        on_tensor_thread(lambda: 1 // 0)
    assert on_tensor_thread(lambda: 2) == 2


def test_the_number_of_threads_is_the_callers() -> None:
    """PyTorch keeps it for each thread; bits of a sum depend on it."""
    before = torch.get_num_threads()
    try:
        for wanted in (1, 2, 1):
            torch.set_num_threads(wanted)
            assert on_tensor_thread(torch.get_num_threads) == wanted
    finally:
        torch.set_num_threads(before)
