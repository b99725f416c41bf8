"""A few optimizer steps of one combination in a fresh process: what the planner is calibrated and judged by.

The process is made as a run's is (`runner.py`), so that what is measured here holds there. Not here: what it does
(`trial_steps.py`), what is made of the figures (`measure/calibration.py`), nor any study's own data.

    end = run_trial(Trial(model="asset:minilm-l6", kind="lora"), longest_seconds=60)
"""

from __future__ import annotations

import errno
import multiprocessing
import os
from multiprocessing.connection import Connection

from paretune.core.config import Settings
from paretune.core.errors import ParetuneError
from paretune.core.limits import wait_briefly
from paretune.measure.calibration import Sample
from paretune.study.guard import cap_memory, die_with_parent, is_out_of_memory
from paretune.study.runner import PRELOADED
from paretune.study.trial_steps import Trial, perform


class TrialEnd(Settings):
    """How a trial ended: with a sample, or with the reason why there is none."""

    sample: Sample | None = None
    out_of_memory: bool = False
    reason: str = ""


def _entry(reply: Connection, text: str) -> None:
    """First function of the process."""
    die_with_parent()
    reply.send(_end(Trial.model_validate_json(text)).model_dump_json())


def _end(trial: Trial) -> TrialEnd:
    try:
        cap_memory(trial.cap_bytes)
        return TrialEnd(sample=perform(trial))
    except MemoryError:
        return TrialEnd(out_of_memory=True, reason="memory does not suffice")
    except ParetuneError as error:
        return TrialEnd(reason=str(error))
    except OSError as error:
        return TrialEnd(out_of_memory=error.errno == errno.ENOMEM, reason=f"{error.strerror or error}")
    except RuntimeError as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return TrialEnd(out_of_memory=is_out_of_memory(error), reason=line)


def run_trial(trial: Trial, longest_seconds: float) -> TrialEnd:
    """Do a trial in a process of its own; one that takes longer is ended, and has no sample."""
    wait_briefly()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receive, reply = context.Pipe(duplex=False)
    process = context.Process(target=_entry, args=(reply, trial.model_dump_json()), daemon=True)
    process.start()
    reply.close()
    try:
        if not receive.poll(longest_seconds):
            return TrialEnd(reason=f"took longer than {longest_seconds:g} s")
        return TrialEnd.model_validate_json(receive.recv())
    except EOFError:
        process.join()
        killed = trial.cap_bytes is not None or process.exitcode == -9  # the kernel's answer to want of memory
        return TrialEnd(out_of_memory=killed, reason=f"the process ended with code {process.exitcode}")
    finally:
        process.kill()
        process.join()
