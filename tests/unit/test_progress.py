"""The runner's news on a terminal: what runs, how many are left, how a run ended, in both languages."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fabricated_study import write_study
from rich.console import Console

from paretune.records.store import RunFolder, StudyFolder
from paretune.study.progress import Terminal


def _told(lang: str, folder: RunFolder) -> str:
    """The line of one ended run, and a note whose text looks like markup."""
    console = Console(file=io.StringIO(), width=200)
    terminal = Terminal(console, lang)
    job: Any = SimpleNamespace(spec=folder.spec(), stage="scored")
    plan: Any = SimpleNamespace(total=5, ended=2)
    terminal.note("reading [/bold] of [data]")
    terminal.began(job, plan)
    terminal.ended(job, folder, 12.34)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("lang", "ended"),
    [
        (
            "en",
            "[3/5] lora, seed 0, learning rate 1·10⁻³: scoring · 3 are left → test: accuracy ",
        ),
        (
            "ru",
            "[3/5] lora, повтор 0, скорость обучения 1·10⁻³: оценка · осталось 3 → ",
        ),
    ],
)
def test_a_run_is_told_in_the_readers_language(tmp_path: Path, lang: str, ended: str) -> None:
    """Method, seed, rate, what is left, score and time in one line; a failure has its reason; nothing is markup."""
    runs = StudyFolder(write_study(tmp_path / "made", methods=("bitfit", "lora", "full"), test_rows=20)).runs()
    by = {(run.spec().method, run.spec().seed): run for run in runs}
    text = _told(lang, by["lora", 0]).replace("\N{NO-BREAK SPACE}", " ")
    assert "reading [/bold] of [data]" in text
    assert ended in text, text
    broken = _told(lang, by["bitfit", 1])
    assert "the loss is not a finite number at step 12" in broken and "→" in broken
    assert broken.split("→ ")[1].split(":")[0].isupper()
