"""The runner's news on a terminal: which run, how many are left, time left, current quality.

Not here: numbers for the report. On a terminal one live line; otherwise one line a finished job.

    run_study(study, Path("runs"), progress=Terminal(Console(stderr=True)), command="…")
"""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.status import Status as LiveLine

from paretune.records.store import RunFolder
from paretune.stats.metrics import METRICS, TOKEN_METRICS
from paretune.study.plan import Job, Plan


class Silent:
    """Says nothing."""

    def note(self, text: str) -> None: ...

    def began(self, job: Job, plan: Plan) -> None: ...

    def alive(self, job: Job, folder: RunFolder) -> None: ...

    def ended(self, job: Job, folder: RunFolder, seconds: float) -> None: ...


def spoken_seconds(seconds: float) -> str:
    """A duration as in "40 s" or "7 min"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def job_name(job: Job) -> str:
    rate = f" lr {job.spec.learning_rate:g}" if job.spec.learning_rate is not None else ""
    doing = "score" if job.stage == "scored" and job.spec.family == "adaptation" else "train"
    return f"{job.spec.method} seed {job.spec.seed}{rate} {doing}"


class Terminal:
    """Live line where the console is a terminal, plain lines where it is not."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: LiveLine | None = None
        self._head = self._last = ""
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def note(self, text: str) -> None:
        self.console.print(f"[dim]{text}[/dim]", highlight=False)

    def began(self, job: Job, plan: Plan) -> None:
        left = plan.total - plan.ended
        self._head = f"[{plan.ended + 1}/{plan.total}] {job_name(job)} · {left} left{self._time_left(left)}"
        if self.console.is_terminal:
            self._live = self.console.status(self._head.replace("[", "\\["))
            self._live.start()

    def _time_left(self, left: int) -> str:
        known = [second for one in self._seconds.values() for second in one]
        if len(known) < 4:
            return ""
        means = [sum(one) / len(one) for one in self._seconds.values()]
        return f" · about {spoken_seconds(left * sum(means) / len(means))}"

    def alive(self, job: Job, folder: RunFolder) -> None:
        if self._live is None:
            return
        events = folder.events()
        steps = next((line["steps"] for line in events if line["event"] == "TrainingPlanned"), None)
        last = next((line for line in reversed(events) if line["event"] == "StepEnded"), None)
        tail = f" · step {last['step']}/{steps}, loss {last['loss']:.3f}" if last and steps else ""
        self._live.update((self._head + tail + self._last).replace("[", "\\["))

    def ended(self, job: Job, folder: RunFolder, seconds: float) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._seconds[job.spec.method, job.stage].append(seconds)
        status = folder.status()
        said = "no status" if status is None else status.state
        if status is not None and status.state == "ok":
            scores = folder.measurements().scores
            split = "test" if "test" in scores else "validation"
            shown = [name for name in (*METRICS, *TOKEN_METRICS) if name in scores[split]]
            said = f"{split} " + ", ".join(f"{name} {scores[split][name]:.3f}" for name in shown)
            self._last = f" · last: {job.spec.method} {said}"
        elif status is not None:
            said = f"{status.state.upper()}: {status.reason}"
        line = f"{self._head} → {said} ({spoken_seconds(seconds)})"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
