"""The runner's news on a terminal: which run, how many are left, time left, current quality.

Not here: numbers for the report. On a terminal one live line; otherwise one line a finished job.

    run_study(study, Path("runs"), progress=Terminal(Console(stderr=True)), command="…")
"""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.status import Status as LiveLine

from paretune.records.schema import EngineUse
from paretune.records.store import RunFolder
from paretune.report.sheets import split_name
from paretune.report.tables import metric_name, state_name
from paretune.report.wording import Words
from paretune.stats.metrics import METRICS, TOKEN_METRICS
from paretune.study.plan import Job, Plan


class Silent:
    """Says nothing."""

    def note(self, text: str) -> None: ...

    def began(self, job: Job, plan: Plan) -> None: ...

    def alive(self, job: Job, folder: RunFolder) -> None: ...

    def ended(self, job: Job, folder: RunFolder, seconds: float) -> None: ...


class Terminal:
    """Live line where the console is a terminal, plain lines where it is not."""

    def __init__(self, console: Console, lang: str = "en") -> None:
        self.console, self.words = console, Words(lang)
        self._live: LiveLine | None = None
        self._head = self._last = ""
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._plain: set[tuple[str, EngineUse]] = set()

    def note(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)

    def began(self, job: Job, plan: Plan) -> None:
        left = plan.total - plan.ended
        many = self.words.plural("{n} is left", "{n} are left", left)
        self._head = f"[{plan.ended + 1}/{plan.total}] {self._name(job)} · {many}{self._time_left(left)}"
        if self.console.is_terminal:
            self._live = self.console.status(self._head.replace("[", "\\["))
            self._live.start()

    def _name(self, job: Job) -> str:
        """The job in words: method, seed, learning rate, and whether it is trained or scored."""
        say, rate = self.words.say, job.spec.learning_rate
        parts = [job.spec.method, say("seed {seed}", {"seed": str(job.spec.seed)})]
        if rate is not None:
            parts.append(say("learning rate {rate}", {"rate": self.words.rate(rate)}))
        scoring = job.stage == "scored" and job.spec.family == "adaptation"
        doing = say("scoring") if scoring else say("training")
        return f"{', '.join(parts)}: {doing}"

    def _time_left(self, left: int) -> str:
        known = [second for one in self._seconds.values() for second in one]
        if len(known) < 4:
            return ""
        means = [sum(one) / len(one) for one in self._seconds.values()]
        time = self.words.duration(round(left * sum(means) / len(means)) or 1)
        return " · " + self.words.say("about {time} left", {"time": time})

    def alive(self, job: Job, folder: RunFolder) -> None:
        if self._live is None:
            return
        events = folder.events()
        steps = next((line["steps"] for line in events if line["event"] == "TrainingPlanned"), None)
        last = next((line for line in reversed(events) if line["event"] == "StepEnded"), None)
        tail = ""
        if last and steps:
            values = {"step": self.words.count(last["step"]), "steps": self.words.count(steps)}
            loss = {"loss": self.words.number(last["loss"])}
            at = self.words.say("step {step} of {steps}", values)
            tail = f" · {at}, " + self.words.say("training loss {loss}", loss)
        self._live.update((self._head + tail + self._last).replace("[", "\\["))

    def ended(self, job: Job, folder: RunFolder, seconds: float) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._seconds[job.spec.method, job.stage].append(seconds)
        status = folder.status()
        said = self.words.say("not finished") if status is None else state_name(self.words, status.state)
        if status is not None and status.state == "ok":
            measured = folder.measurements()
            scores = measured.scores
            split = "test" if "test" in scores else "validation"
            shown = [name for name in (*METRICS, *TOKEN_METRICS) if name in scores[split]]
            values = [f"{metric_name(self.words, name)} {self.words.number(scores[split][name])}" for name in shown]
            said = f"{split_name(self.words, split)}: {', '.join(values)}"
            last = self.words.say("last: {method}", {"method": job.spec.method})
            self._last = f" · {last}, {said}"
            engine = measured.engine
            if engine is not None and engine.name == "transformers" and (job.spec.method, engine) not in self._plain:
                self._plain.add((job.spec.method, engine))
                values = {"method": job.spec.method, "reason": engine.reason}
                self.note(self.words.say("{method} goes through the plain modules, which are slower: {reason}", values))
        elif status is not None:
            said = f"{said.upper()}: {status.reason}"
        line = f"{self._head} → {said} ({self.words.duration(seconds)})"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
