"""The verbs that look at a user's data before anything is trained, `new` and `explore`; `cli.py` puts them in.

Not here: what they do. Heavy imports stay inside the verbs.

    paretune new --data my.csv
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from paretune.cli_options import DataOption, JsonFlag, LangOption, StudyArgument, data_folder, language, say_json


def new(
    out: Annotated[Path, typer.Argument(help="Where to write the study file.")] = Path("study.toml"),
    data: Annotated[Path | None, typer.Option("--data", help="Your CSV, TSV, JSONL or Parquet file.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Column that holds the text.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column that holds the label.")] = None,
    test: Annotated[Path | None, typer.Option("--test", help="Test file; without it a part is set aside.")] = None,
    model: Annotated[str, typer.Option("--model", help="asset:NAME, path:FOLDER or hub:OWNER/NAME.")] = "",
    encoding: Annotated[str, typer.Option("--encoding", help="Encoding of the file, such as cp1251.")] = "utf-8",
    separator: Annotated[str | None, typer.Option("--separator", help="Sign between columns, such as ;.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    json_line: JsonFlag = False,
) -> None:
    """Write a commented study file for your own data; what is not given is asked for."""
    from paretune.study.new import Answers, columns_of, write_study_file

    data = data or Path(typer.prompt("File with your texts (CSV, TSV, JSONL or Parquet)"))
    columns = columns_of(data, encoding, separator)
    text_column: str = text or typer.prompt(f"Column of the text ({', '.join(columns)})")
    label_column: str = label or typer.prompt(f"Column of the label ({', '.join(columns)})")
    answers = Answers(data, text_column, label_column, test, model, encoding, separator)
    written = write_study_file(out, answers, force)
    print(f"wrote {written}; next: paretune study {shlex.quote(str(written))}")
    say_json(json_line, {"study": str(written)})


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
