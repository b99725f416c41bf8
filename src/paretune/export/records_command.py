"""What `paretune export` does and says where the target is a tool that keeps records: lines and one JSON object out.

Not here: the tools' own forms (`records/exporters/`), models (`export_command.py`). It imports no torch.

    lines, tree = records_command(Path("results/demo"), Path("demo-csv"), "csv", "en")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from paretune.core.config import JsonObject
from paretune.core.errors import ConfigError, said
from paretune.records.exporters.export import MARKER, export_records
from paretune.records.store import StudyFolder
from paretune.report.facts import faults_of
from paretune.report.faults import fault_text, note_of
from paretune.report.wording import Words

_TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "one": "{target}: {n} run of {study} in {path}",
        "many": "{target}: {n} runs of {study} in {path}",
        "csv": "tables: runs.csv (one row a run), steps.csv (curves by step), predictions.csv (every example)",
        "tool": "open it: {command}",
    },
    "ru": {
        "one": "{target}: исследование {study}, запусков: {n}, в {path}",
        "many": "{target}: исследование {study}, запусков: {n}, в {path}",
        "csv": "таблицы: runs.csv (строка на запуск), steps.csv (кривые по шагам), predictions.csv (все примеры)",
        "tool": "открыть: {command}",
    },
}
COMMANDS: Mapping[str, str] = {
    "tensorboard": "tensorboard --logdir {path}",
    "mlflow": "mlflow ui --backend-store-uri sqlite:///{path}/mlflow.db",
    "trackio": "TRACKIO_DIR={path} trackio show",
}


def records_command(source: Path, out: Path, target: str, lang: str) -> tuple[list[str], JsonObject]:
    """Export a study's records, and what to print of it.

    Raises:
        as `export_records`, and ConfigError for the folder of one run.
    """
    if (source / "spec.json").is_file():
        given = f"--to {target} with the run {source.name}"
        raise ConfigError(said(given, "a STUDY folder, whose runs are all exported"))
    path = export_records(source, target, out)
    marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
    texts, runs = _TEXTS[lang], int(marker["runs"])
    head = texts["one" if runs == 1 else "many"].format(
        target=target, n=Words(lang).count(runs), study=marker["study"], path=path
    )
    command = COMMANDS[target].format(path=quote(str(path))) if target in COMMANDS else ""
    next_line = texts["tool"].format(command=command) if command else texts["csv"]
    faults = [fault_text(Words(lang), fault) for fault in faults_of(StudyFolder(source))]
    return [head, next_line, *([note_of(Words(lang), faults)] if faults else [])], {
        "path": str(path),
        "faults": faults,
        "to": target,
        "study": marker["study"],
        "runs": runs,
        "command": command or None,
    }
