"""Runs one function in a fresh process that has nothing of this one but its arguments, and gives what it returned.

The process is forked from a server that has only imported libraries, so that nothing loaded here is shared. It ends
with this process. Not here: the runs of a study (`runner.py`), which have records of their own.

    checked = in_fresh_process(certify, request)
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar, cast

from paretune.core.errors import ParetuneError, RunError, said
from paretune.core.limits import usable_cores, wait_briefly
from paretune.study.guard import die_with_parent

P = ParamSpec("P")
T = TypeVar("T")
PRELOADED = ["paretune.study.worker", "paretune.serve.engine", "transformers.models.bert.modeling_bert"]


def in_fresh_process(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function of a module in a process of its own; arguments and answer are pickled.

    Raises:
        ParetuneError: what the function raised of ours.
        RunError: the process was ended (memory, most likely), or anything else was raised in it.
    """
    wait_briefly()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receive, reply = context.Pipe(duplex=False)
    process = context.Process(target=_entry, args=(reply, function, arguments, named), daemon=True)
    process.start()
    reply.close()
    try:
        outcome = cast("tuple[T | None, Exception | None]", receive.recv())
        process.join()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        given = f"the process of {function.__name__} {how} without an answer"
        raise RunError(said(given, "an answer", do="is there memory enough?")) from None
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        receive.close()
    answer, error = outcome
    if error is not None:
        raise error
    return cast(T, answer)


def _entry(
    reply: Connection, function: Callable[..., object], arguments: tuple[object, ...], named: dict[str, object]
) -> None:
    """First function of the process."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    from paretune.repro.seeding import make_repeatable

    make_repeatable(0, usable_cores())
    try:
        reply.send((function(*arguments, **named), None))
    except ParetuneError as error:
        reply.send((None, error))
    except Exception as error:  # of any library: told in one line, because it may not be picklable
        first = (str(error).splitlines() or [""])[0]
        reply.send((None, RunError(f"{function.__name__}: {type(error).__name__}: {first}")))
