"""Writes the research report in the form that is asked for, and checks its claims.

Not here: what stands in it (`report.py`).

    write_report([Path("results/r8"), Path("results/demo")], "ru", "pdf", Path("report.ru.pdf"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.core.config import load_toml, nearest
from paretune.core.errors import ConfigError, said
from paretune.records.store import StudyFolder, write_atomically
from paretune.report.bench_lines import FOLDER, bench_lines, study_folders
from paretune.report.claims import Judged, Ledger, judged
from paretune.report.facts import gather
from paretune.report.research.bibliography import numbered
from paretune.report.research.html import rendered_html
from paretune.report.research.markdown import PlainInk, as_markdown
from paretune.report.research.pdf import rendered_pdf
from paretune.report.research.report import gather_report
from paretune.report.wording import Words, check_language

FORMS = ("html", "pdf", "md", "json")
LEDGER = "claims.toml"


def ledger_beside(folders: Sequence[Path]) -> Path | None:
    """`claims.toml` in the folder that holds the studies; None where there is none."""
    found = (folder.resolve().parent / LEDGER for folder in folders)
    return next((file for file in found if file.is_file()), None)


def check_form(form: str) -> str:
    """The form itself.

    Raises:
        ConfigError: a report cannot be written so.
    """
    if form not in FORMS:
        raise ConfigError(said(f"--format {form}", "one of " + ", ".join(FORMS), nearest=nearest(form, FORMS)))
    return form


def write_report(
    folders: Sequence[Path], lang: str, form: str, out: Path, ledger: Path | None = None, root: Path | None = None
) -> Path:
    """Gather and write; `root` is where the repository's files lie, the working folder by default.

    Raises:
        ConfigError: an unknown language or form. RecordError: as `gather_report` and the renderers.
        StorageError: `out` cannot be written.
    """
    check_form(form)
    check_language(lang)
    report = gather_report(folders, ledger or ledger_beside(folders), root or Path.cwd())
    edition, words = report.editions[lang], Words(lang)
    if form == "html":
        write_atomically(out, rendered_html(edition, words))
    elif form == "pdf":
        write_atomically(out, rendered_pdf(edition, words))
    elif form == "md":
        ink = PlainInk(words, numbered(edition.cited, lang).entries)
        write_atomically(out, as_markdown(edition, ink))
    else:
        write_atomically(out, report.model_dump_json(indent=1))
    return out


def judge(folders: Sequence[Path], ledger: Path | None = None) -> dict[str, Judged]:
    """Every claim of the ledger, evaluated anew; empty where there is no ledger.

    Raises:
        RecordError, UnknownNameError: as `judged`.
    """
    file = ledger or ledger_beside(folders)
    if file is None:
        return {}
    facts = (gather(StudyFolder(folder)) for folder in study_folders(folders))
    lines = bench_lines(file.resolve().parent / FOLDER)
    return judged(load_toml(file, Ledger), {one.study.name: one for one in facts}, lines)
