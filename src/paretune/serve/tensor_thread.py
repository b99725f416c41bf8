"""All tensor work of a process on one thread, first come, first served.

libgomp keeps a pool of workers for every thread that ever ran a parallel region, and where all of them together are
more than the cores it lets waiting threads sleep almost at once (`gomp_throttled_spin_count_var`). On two cores a
second pool cost the engine 20–30 % of its throughput (LOG.md). Being served in turn also keeps a loader that checks a
bundle from waiting for ever behind an engine under load. Not here: what is computed (`engine.py`).

    hidden = on_tensor_thread(lambda: encoder.hidden(texts))
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

ResultT = TypeVar("ResultT")
_Work = tuple[Callable[[], Any], "Future[Any]"]


class _Thread:
    """Started at its first work; a daemon, since a pass that hangs must not keep the process alive."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], ResultT]) -> ResultT:
        if threading.current_thread() is self._started():
            return work()
        future: Future[ResultT] = Future()
        threads = torch.get_num_threads()  # PyTorch keeps it for each thread: here it follows the caller's
        self._waiting.put((lambda: _follow(threads, work), future))
        return future.result()

    def _started(self) -> threading.Thread:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="paretune-tensors", daemon=True)
                self._thread.start()
            return self._thread

    def _main(self) -> None:
        while True:
            work, future = self._waiting.get()
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del work, future  # nothing of it stays in memory until the next one comes


def _follow(threads: int, work: Callable[[], ResultT]) -> ResultT:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return work()


def with_threads(threads: int, work: Callable[[], ResultT]) -> ResultT:
    """Run `work` with so many threads in this thread, and go back to the number before."""
    before = torch.get_num_threads()
    try:
        return _follow(threads, work)
    finally:
        if before != threads:
            torch.set_num_threads(before)


_THREAD = _Thread()


def on_tensor_thread(work: Callable[[], ResultT]) -> ResultT:
    """Run `work` on the process's tensor thread (at once where the caller is on it) and give what it returns or raises.

    `work` may not wait for a lock whose holder may call this too.
    """
    return _THREAD.run(work)
