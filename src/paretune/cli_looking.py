"""The verbs that look at records, `dashboard` and `advise`, and the dashboard's bench; `cli.py` puts them in.

Not here: what they do. Heavy imports stay inside the verbs.

    paretune dashboard results
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretune.cli_options import JsonFlag, LangOption, NoHeaderFlag, QuotingOption, language, quoting_of, say_json

if TYPE_CHECKING:
    from paretune.records.store import StudyFolder

HOST, PORT = "127.0.0.1", 8010


def tell_tokens(folder: StudyFolder, lang: str, json_line: bool) -> None:
    """What `paretune study` says at the end of a study of next tokens; exit code 3 where something stays open."""
    from rich.console import Console

    from paretune.core.errors import RunError, said
    from paretune.report.facts import faults_of
    from paretune.report.faults import fault_text, note_of
    from paretune.report.terminal import print_table
    from paretune.report.token_table import open_token_ends, token_note, token_rows, token_table
    from paretune.report.wording import Words

    words, rows = Words(lang), token_rows(folder)
    print_table(token_table(folder, rows, words), Console())
    print(token_note(words))
    if note := note_of(words, [fault_text(words, fault) for fault in faults_of(folder)]):
        print(note)
    undecided = open_token_ends(rows)
    quality = {row.method: row.nll for row in rows}
    say_json(json_line, {"folder": str(folder.path), "nll": quality, "undecided": undecided})
    if not any(row.seeds for row in rows):
        ends = "; ".join(f"{row.method}: " + ", ".join(f"{state} × {n}" for state, n in row.stopped) for row in rows)
        raise RunError(said(f"no run was scored: {ends}", "at least one", do="runs/*/status in the folder says why"))
    if undecided:
        raise typer.Exit(3)


def dashboard(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders of studies (runs, results) or of one study (runs/demo).", show_default=False),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; a public one needs a token.")] = HOST,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = PORT,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the token which readers must give.")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="The same in the open: other users see it in the list of processes.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Serve nothing: write one study as one HTML file, such as out.html.")
    ] = None,
    lang: LangOption = None,
    json_line: JsonFlag = False,
) -> None:
    """Look at studies in a browser, while they run and after.

    Results, budget, settings, runs, data, examples, claims. It only reads; without --host only this machine sees it.
    """
    from paretune.dashboard.server import given_token

    spoken, secret = language(lang), given_token(token, token_file)
    if export is not None:
        from paretune.core.errors import ConfigError, said
        from paretune.dashboard.export import export_page

        if secret is not None or (host, port) != (HOST, PORT):
            raise ConfigError(said("--export with a token, --host or --port", "--export alone: nothing is served"))
        if len(folders) != 1:
            raise ConfigError(said(f"--export with {len(folders)} folders", "the folder of one study"))
        page = export_page(folders[0], export, spoken)
        print(f"{'Страница' if spoken == 'ru' else 'Page'}: {page}")
        say_json(json_line, {"page": str(page)})
        return
    from paretune.dashboard.server import serve_dashboard

    code = serve_dashboard(folders, host, port, secret, spoken, lambda line: print(line, flush=True))
    say_json(json_line, {"exit_code": code})
    raise typer.Exit(code)


def advise(
    rows: Annotated[int | None, typer.Option("--rows", help="Rows to train on.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Classes.")] = None,
    tokens: Annotated[
        float | None, typer.Option("--tokens", help="Mean tokens of a text, as `explore` counts.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Your CSV, TSV, JSON or Parquet file, to measure those three.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="With --data: column of the text; `text` else.")] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="With --data: column of the label; `label` else.")
    ] = None,
    encoding: Annotated[str | None, typer.Option("--encoding", help="With --data: such as cp1251; utf-8 else.")] = None,
    separator: Annotated[str | None, typer.Option("--separator", help="With --data: sign between columns.")] = None,
    quoting: QuotingOption = None,
    no_header: NoHeaderFlag = False,
    memory: Annotated[
        str | None, typer.Option("--memory", help='Most peak memory of training, such as "2 GiB".')
    ] = None,
    time: Annotated[str | None, typer.Option("--time", help='Most time of one training, such as "10 min".')] = None,
    task: Annotated[str, typer.Option("--task", help="`paretune tasks` lists them.")] = "classification",
    model: Annotated[
        str | None, typer.Option("--model", help="Base model, such as asset:minilm-l6; costs are of this one alone.")
    ] = None,
    text_language: Annotated[str | None, typer.Option("--text-language", help="Of the texts, such as ru.")] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="accuracy, macro_f1 or mcc; that of the nearest study else.")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results",
            help="Where published records lie; may be repeated.  [default: those that ship with paretune]",
        ),
    ] = None,
    lang: LangOption = None,
    json_line: JsonFlag = False,
) -> None:
    """Rank the methods for data like yours by published studies; nothing is trained.

    Says with each figure its uncertainty, and how far your case lies from what was measured. Exit code 3 if no method
    can be named.
    """
    from rich.console import Console

    from paretune.study.advise_command import Asked, advise_command

    notes = Console(stderr=True)
    asked = Asked(
        rows,
        classes,
        tokens,
        task,
        memory,
        time,
        model,
        text_language,
        metric,
        data,
        text,
        label,
        encoding,
        separator,
        quoting_of(quoting),
        no_header,
    )
    lines, tree = advise_command(
        asked,
        results or [],
        language(lang),
        Console().width,
        lambda line: notes.print(line, style="dim", highlight=False, markup=False),
    )
    print("\n".join(lines))
    say_json(json_line, tree)
    if all(one["rank"] is None for one in tree["ranked"]):
        raise typer.Exit(3)


def bench_dashboard(
    runs: Annotated[int, typer.Option("--runs", min=30, max=690, help="Runs in the generated studies.")] = 500,
    json_line: JsonFlag = False,
) -> None:
    """Measure how long a reader waits for the dashboard's pages, on generated records."""
    from paretune.dashboard.bench import bench_dashboard as measure
    from paretune.dashboard.bench import report_lines

    found = measure(runs)
    print("\n".join(report_lines(found)))
    say_json(json_line, found)


def add_to(app: typer.Typer, bench: typer.Typer) -> None:
    """Put these verbs into the command line and its benches."""
    for verb in (dashboard, advise):
        app.command()(verb)
    bench.command("dashboard")(bench_dashboard)
