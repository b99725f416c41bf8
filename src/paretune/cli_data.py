"""The verbs that look at a user's data before anything is trained, `new` and `explore`; `cli.py` puts them in.

Not here: what they do. Heavy imports stay inside the verbs.

    paretune new --data my.csv
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from paretune.cli_options import (
    DataOption,
    JsonFlag,
    LangOption,
    NoHeaderFlag,
    QuotingOption,
    StudyArgument,
    data_folder,
    language,
    quoting_of,
    say_json,
)

if TYPE_CHECKING:
    from paretune.study.new import Look

Answer = TypeVar("Answer")


def new(
    out: Annotated[Path, typer.Argument(help="Where to write the study file.")] = Path("study.toml"),
    data: Annotated[Path | None, typer.Option("--data", help="Your CSV, TSV, JSON or Parquet file.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Column that holds the text.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column that holds the label.")] = None,
    test: Annotated[Path | None, typer.Option("--test", help="Test file; without it a part is set aside.")] = None,
    model: Annotated[str, typer.Option("--model", help="asset:NAME, path:FOLDER or hub:OWNER/NAME.")] = "",
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Encoding of the file, such as cp1251; else seen in the file.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option("--separator", help="Sign between columns, such as ;, else seen in the file.")
    ] = None,
    quoting: QuotingOption = None,
    no_header: NoHeaderFlag = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    lang: LangOption = None,
    json_line: JsonFlag = False,
) -> None:
    """Write a commented study file for your own data; what is not given is asked for, what was found is said."""
    from paretune.report.wording import Words
    from paretune.study.new import (
        Answers,
        check_column,
        check_out,
        guessed_columns,
        look_at,
        name_of,
        plan_text,
        quick_plan,
        sensed_texts,
        survey,
        survey_texts,
        write_study_file,
    )

    words = Words(language(lang))
    check_out(out, force)
    quotes = quoting_of(quoting)
    given = {"encoding": encoding, "separator": separator, "text": text, "label": label}
    told = frozenset(
        {name for name, value in given.items() if value is not None} | ({"header"} if no_header else set())
    )

    def read(path: str) -> Look:
        answers = Answers(
            Path(path).expanduser(), text or "", label or "", test, model, encoding or "utf-8", separator, quotes
        )
        return look_at(replace(answers, header=not no_header), told)

    look = (
        read(str(data)) if data else _asked(words.say("File with your texts (CSV, TSV, JSON or Parquet)"), read, None)
    )
    for line in sensed_texts(look.sensed, words):
        print(line)
    likely_text, likely_label = guessed_columns(look)
    columns = {"columns": ", ".join(look.columns[:30]) + (", …" if len(look.columns) > 30 else "")}
    text_column = check_column(look, "text", text) if text else None
    label_column = check_column(look, "label", label) if label else None
    if text_column is None:
        asked = words.say("Column of the text ({columns})", columns)
        text_column = _asked(asked, lambda name: check_column(look, "text", name), likely_text)
    if label_column is None:
        asked = words.say("Column of the label ({columns})", columns)
        likely = likely_label if likely_label != text_column else None
        label_column = _asked(asked, lambda name: check_column(look, "label", name), likely)
    answers = replace(look.answers, text=text_column, label=label_column)
    found = survey(answers)
    written = write_study_file(out, answers, force, words.lang, found)
    told_lines = survey_texts(found, words)
    name = name_of(written)
    print(words.say("Wrote {file}: the study {name}.", {"file": str(written), "name": name}))
    print("\n".join(f"- {one}" for one in told_lines))
    expected = plan_text(quick_plan(written, found), words)
    if expected is not None:
        print(f"- {expected}")
    quoted = shlex.quote(str(written))
    steps = {
        f"paretune explore {quoted}": words.say("lengths, label errors, figures"),
        f"paretune plan {quoted}": words.say("memory and time, before anything runs"),
        f"paretune study {quoted}": words.say("train, compare, report"),
    }
    print(words.say("Next:"))
    print("\n".join(f"  {command:{max(map(len, steps))}}  # {what}" for command, what in steps.items()))
    rows = {part: len(one) for part, one in found.prepared.splits.items()}
    tree = {"study": str(written), "name": name, "rows": rows, "classes": len(found.prepared.labels)}
    say_json(json_line, {**tree, "model": found.model, "findings": told_lines, "next": list(steps)})


def _asked(question: str, check: Callable[[str], Answer], likely: str | None) -> Answer:
    """The answer to a question, which is asked again, with the reason, until it can be used.

    Raises:
        UsageError: nobody answers.
    """
    from paretune.core.errors import UsageError, said

    while True:
        try:
            typed: str = typer.prompt(question, default=likely)
        except typer.Abort:
            if sys.stdin.isatty():
                raise
            raise UsageError(said("no answer", "answers, or --data, --text and --label")) from None
        try:
            return check(typed.strip())
        except UsageError as error:
            print(f"paretune: {error}", file=sys.stderr)


def explore(
    file: StudyArgument,
    data: DataOption = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for explore.html and explore.json.")] = Path("explore"),
    lang: LangOption = None,
    json_line: JsonFlag = False,
) -> None:
    """Look at a study's data before anything is trained: what was found, numbers, figures, suspected label errors."""
    from paretune.data.explore import explore as look_at
    from paretune.data.prepare import prepare
    from paretune.models.tokenizer import read_tokenizer
    from paretune.records.store import write_atomically
    from paretune.report.exploration_findings import findings, sizes_text
    from paretune.report.explore_page import build_exploration
    from paretune.report.wording import Words
    from paretune.study.design import read_study_file
    from paretune.tasks.task import TASKS

    words = Words(language(lang))
    checked = read_study_file(file, data_folder(data))
    settings, source = checked.file, checked.file.model.source
    prepared = prepare(settings.data, checked.base, TASKS.load(settings.task.kind).labelled)
    found = look_at(prepared, read_tokenizer(source), source, settings.train.max_tokens, settings.data.train)
    write_atomically(out / "explore.json", found.model_dump_json(indent=1))
    page = build_exploration(found, words.lang, out / "explore.html")
    told = findings(found, words)
    print("\n".join([sizes_text(found.rows, found.classes, words), *(f"- {one}" for one in told)]))
    print(f"{'Записано' if words.lang == 'ru' else 'wrote'}: {page}, {out / 'explore.json'}")
    tree = {"page": str(page), "rows": found.rows, "suspects": found.suspect_rows, "leaks": found.leaks}
    say_json(json_line, {**tree, "findings": told})


def add_to(app: typer.Typer) -> None:
    """Put these verbs into the command line."""
    for verb in (new, explore):
        app.command()(verb)
