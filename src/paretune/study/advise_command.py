"""What `paretune advise` does and says: words and units in, lines and one JSON object out.

Not here: parsing a command line (`cli_looking.py`), the advice (`advise.py`), sentences (`advise_lines.py`).

    lines, tree = advise_command(Asked(rows=800, classes=6, tokens=90.0), [Path("results")], "en")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paretune.core.config import JsonObject
from paretune.core.errors import ConfigError, RecordError, said
from paretune.core.units import parse_bytes, parse_seconds
from paretune.data.files import Quoting
from paretune.report.wording import Words, check_language
from paretune.study.advise import Advice, Advised, advise, advise_on
from paretune.study.advise_case import Case, Distance, check_case
from paretune.study.advise_lines import COLUMNS, advise_lines
from paretune.study.advise_records import shipped
from paretune.study.new import Answers

_READING: Mapping[str, tuple[str, str, str]] = {
    "en": (
        "reading {file} as a study does: validation and test are set aside",
        "reading records of {n} studies",
        "{n} studies published with this version",
    ),
    "ru": (
        "читаю {file}, как для исследования: валидация и тест отложены",
        "читаю записи исследований: {n}",
        "исследования, опубликованные с этой версией: {n}",
    ),
}


@dataclass(frozen=True)
class Asked:
    """What was typed; None where nothing was. What `data` is measured to have, a typed figure replaces."""

    rows: int | None = None
    classes: int | None = None
    tokens: float | None = None
    task: str = "classification"
    memory: str | None = None
    time: str | None = None
    model: str | None = None
    language: str | None = None
    metric: str | None = None
    data: Path | None = None
    text: str | None = None
    label: str | None = None
    encoding: str | None = None
    separator: str | None = None
    quoting: Quoting | None = None
    no_header: bool = False


def advise_command(
    asked: Asked,
    results: Sequence[Path],
    lang: str,
    columns: int = COLUMNS,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[str], JsonObject]:
    """Advice from the studies in `results` (none: those that ship), and what to print; `say` hears what is read.

    Raises:
        as `advise`, and ConfigError for a size, duration or task that is none, or too little that is known of the case.
        RecordError: there are no records. DataError, AssetError: `data` cannot be measured.
    """
    check_language(lang)
    folders, studies = published(results), shipped() if not results else []
    case = _case(asked, lang, say)
    say(_READING[lang][1 if results else 2].format(n=len(folders) or len(studies)))
    advice = advise(folders, case) if results else advise_on(studies, case)
    return advise_lines(advice, Words(lang), columns), json_of(advice)


def published(results: Sequence[Path]) -> list[Path]:
    """The studies in some folders, each of which holds studies or is one.

    Raises:
        RecordError: one of them is none of that.
    """
    do = "`paretune publish` makes them, --results names another folder"
    found: list[Path] = []
    for folder in results:
        if not folder.is_dir():
            raise RecordError(said(f"no folder {folder}", "a folder of published studies", do=do))
        inside = sorted(path.parent for path in folder.glob("*/study.json") if not path.parent.name.startswith("."))
        here = [folder] if (folder / "study.json").is_file() else inside
        if not here:
            raise RecordError(said(f"{folder} holds no study", "a folder of published studies", do=do))
        found += here
    return found


def _case(asked: Asked, lang: str, say: Callable[[str], None]) -> Case:
    """The case; what was not typed is measured, after all that was typed has been checked."""
    _check_options(asked)
    typed = check_case(
        Case(
            rows=asked.rows if asked.rows is not None else 1,
            classes=asked.classes if asked.classes is not None else 2,
            tokens=asked.tokens if asked.tokens is not None else 1.0,
            task=asked.task,
            memory_bytes=parse_bytes(asked.memory) if asked.memory is not None else None,
            seconds=parse_seconds(asked.time) if asked.time is not None else None,
            model=asked.model,
            language=asked.language,
            metric=asked.metric,
        )
    )
    _check_names(asked)
    if asked.data is None:
        return typed
    from paretune.study.advise_data import measure_texts  # imports all that reads and splits data

    say(_READING[lang][0].format(file=asked.data))
    text, label, encoding = asked.text or "text", asked.label or "label", asked.encoding or "utf-8"
    layout = (encoding, asked.separator, asked.quoting, not asked.no_header)
    found = measure_texts(Answers(asked.data, text, label, None, asked.model or "", *layout))
    return replace(
        typed,
        rows=found.rows if asked.rows is None else asked.rows,
        classes=found.classes if asked.classes is None else asked.classes,
        tokens=found.tokens if asked.tokens is None else asked.tokens,
        model=found.model,
        script=found.script if asked.language is None else None,
    )


def _check_options(asked: Asked) -> None:
    """Sizes are typed or come from a file, and what is about a file comes with one.

    Raises:
        ConfigError: they do not.
    """
    if asked.data is not None:
        return
    about = {
        "--text": asked.text,
        "--label": asked.label,
        "--encoding": asked.encoding,
        "--separator": asked.separator,
        "--quoting": asked.quoting,
        "--no-header": asked.no_header or None,
    }
    for option, value in about.items():
        if value is not None:
            raise ConfigError(said(f"{option} without --data", f"--data FILE, which {option} is about"))
    sizes = {"--rows": asked.rows, "--classes": asked.classes, "--tokens": asked.tokens}
    missing = [option for option, value in sizes.items() if value is None]
    if missing:
        allowed = "--rows, --classes and --tokens, or --data FILE to be measured"
        raise ConfigError(said(f"no {', no '.join(missing)}", allowed))


def _check_names(asked: Asked) -> None:
    from paretune.models.sources import parse_source  # these import torch
    from paretune.tasks.task import TASKS

    TASKS.check(asked.task)
    if asked.model is not None:
        parse_source(asked.model)


def json_of(advice: Advice) -> JsonObject:
    """The same for programs; an end of an interval that is not there is null."""
    return {
        "case": asdict(advice.case),
        "metric": advice.metric,
        "control": advice.control,
        "model": advice.model,
        "nothing_comparable": advice.nothing_comparable,
        "ranked": [_method(one) for one in advice.ranked],
        "near": [_distance(apart) for apart in advice.near],
        "far": [{**_distance(apart), "why": why} for apart, why in advice.far],
        "never_scored": [
            {"study": study, "method": method, "states": list(states)} for study, method, states in advice.never_scored
        ],
        "majority": {
            "studies": list(advice.majority),
            "not_above": list(advice.not_above_majority),
            "nothing_learnt": advice.nothing_learnt,
        },
        "low_evidence": list(advice.low),
        "settings": [{"study": study, **one.model_dump(mode="json")} for study, one in advice.variants],
        "machines": [{"processor": processor, "cores": cores} for processor, cores in advice.machines],
    }


def _method(one: Advised) -> JsonObject:
    return {**asdict(one), "fits": one.fits, "difference": _finite(asdict(one.difference)),
            "seconds": _finite(asdict(one.seconds)) if one.seconds else None}  # fmt: skip


def _distance(apart: Distance) -> JsonObject:
    return {**asdict(apart), "distance": apart.total}


def _finite(tree: JsonObject) -> JsonObject:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in tree.items()
    }
