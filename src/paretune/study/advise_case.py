"""A case to be advised on, and how far it lies from what a study measured.

Not here: what is said of it (`advise.py`). Distances are ratios of training rows, classes and mean tokens of a text, as
natural logarithms; a base model and a script (what the records know of a language) are the same or not. Tokens weigh
half: a text is cut to `max_tokens`, its length goes into the costs by itself, and which method is better hangs on the
number of examples and classes first.

    distance(Case(rows=800, classes=6, tokens=90), evidence).total
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paretune.core.config import nearest
from paretune.core.errors import ConfigError, said
from paretune.stats.metrics import METRICS
from paretune.study.advise_records import Evidence

REACH = 10.0  # a study tells of a case at most so many times larger or smaller
TOKENS_WEIGH = 0.5  # so that texts may be REACH² times as long
SCRIPTS = {
    **dict.fromkeys(("ru", "uk", "be", "bg", "sr", "mk", "kk"), "Cyrillic"),
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl", "pl", "cs", "sv", "tr", "fi"), "Latin"),
}


@dataclass(frozen=True)
class Case:
    """What is to be done: training rows, classes, mean tokens of a text; limits on one training; what is known else.

    `model` is a base model's source ("asset:minilm-l6"), `language` a code ("ru"), `script` what its texts are written
    in ("Cyrillic") where that was counted, `metric` the one to rank by; where a field is None, model and metric are the
    nearest study's.
    """

    rows: int
    classes: int
    tokens: float
    task: str = "classification"
    memory_bytes: float | None = None
    seconds: float | None = None
    model: str | None = None
    language: str | None = None
    script: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Distance:
    """How far a case lies from a study: ratios case ÷ study; None where the records do not say.

    `other_model` and `other_script` are None where the case does not say or the records do not.
    """

    study: str
    rows: float
    classes: float
    tokens: float | None
    model: str
    data: str
    other_model: bool | None
    other_script: bool | None

    @property
    def logs(self) -> list[float]:
        """Natural logarithms of the ratios, that of the tokens with its weight."""
        tokens = [TOKENS_WEIGH * math.log(self.tokens)] if self.tokens is not None else []
        return [math.log(self.rows), math.log(self.classes), *tokens]

    @property
    def total(self) -> float:
        """Length of the vector of logarithms."""
        return math.hypot(*self.logs)

    @property
    def comparable(self) -> bool:
        return self.tokens is not None and max(abs(one) for one in self.logs) <= math.log(REACH)


def check_case(case: Case) -> Case:
    """The case itself.

    Raises:
        ConfigError: a size or limit that is none, an unknown metric or language.
    """
    least = {"rows": 1, "classes": 2, "tokens": 0, "memory": 0, "time": 0}
    values = (case.rows, case.classes, case.tokens, case.memory_bytes, case.seconds)
    for (name, low), value in zip(least.items(), values, strict=True):
        wrong = value is not None and (not math.isfinite(value) or value < low or value == 0)
        if wrong:
            raise ConfigError(said(f"{name} {value}", f"a number of at least {low}" if low else "a number above 0"))
    if case.metric is not None and case.metric not in METRICS:
        near = nearest(case.metric, METRICS)
        raise ConfigError(said(f"metric {case.metric!r}", "one of " + ", ".join(METRICS), nearest=near))
    if case.language is not None and case.language not in SCRIPTS:
        allowed = "one of " + ", ".join(sorted(SCRIPTS))
        raise ConfigError(said(f"language {case.language!r} of the texts", allowed))
    return case


def distance(case: Case, study: Evidence) -> Distance:
    """How far a case lies from a study."""
    wanted = case.script or SCRIPTS.get(case.language or "")
    return Distance(
        study=study.study,
        rows=case.rows / study.rows,
        classes=case.classes / study.classes,
        tokens=case.tokens / study.tokens if study.tokens else None,
        model=study.model,
        data=study.data,
        other_model=case.model != study.model if case.model is not None else None,
        other_script=wanted != study.script if wanted is not None and study.script is not None else None,
    )
