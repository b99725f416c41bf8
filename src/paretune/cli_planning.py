"""The verbs that look ahead, `plan` and `bench plan`; `cli.py` puts them in.

Not here: what they do. Heavy imports stay inside the verbs.

    paretune plan studies/demo.toml --memory "2 GiB"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paretune.cli_options import JsonFlag, data_folder, say_json


def plan(
    file: Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)],
    data: Annotated[Path | None, typer.Option("--data", help="Folder where the study's data paths start.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help='Most memory of one run, such as "4 GiB"; the study\'s limit else.')
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", help='Most time of one run, such as "1 h"; the study\'s limit else.')
    ] = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Run a few steps of the largest that fits under that memory cap.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure the steps anew, as after a first call on a busy machine.")
    ] = False,
    runs: Annotated[Path, typer.Option("--runs", help="Where studies ran: the planner's own record of errors.")] = Path(
        "runs"
    ),
    json_line: JsonFlag = False,
) -> None:
    """Say what a study will need before anything of it runs, and which setting fits a budget.

    The first call for a model measures some steps on this machine, at most 30 s for each number format. Exit code 3 if
    a method fits with no setting.
    """
    from paretune.study.first_look import first_look

    first_look(file, data_folder(data))

    from rich.console import Console

    from paretune.study.plan_command import plan_command

    notes = Console(stderr=True)
    lines, tree, fits = plan_command(
        file,
        data,
        memory,
        time,
        runs,
        certify,
        again,
        lambda line: notes.print(line, style="dim", highlight=False, markup=False),
    )
    print("\n".join(lines))
    say_json(json_line, tree)
    if not fits:
        raise typer.Exit(3)


def bench_plan(
    listed: Annotated[Path, typer.Option("--combinations", help="What is predicted and then measured.")] = Path(
        "benchmarks/plan_combinations.toml"
    ),
    folder: Annotated[
        Path, typer.Option("--folder", help="Where results stay; what is there is not run again.")
    ] = Path("runs/bench-plan"),
    only: Annotated[str | None, typer.Option("--only", help="Measure this combination alone.")] = None,
    most: Annotated[int | None, typer.Option("--most", min=0, help="Measure at most so many now.")] = None,
    json_line: JsonFlag = False,
) -> None:
    """Measure how right `plan` is: predict listed combinations, run each for a few steps, compare."""
    from rich.console import Console

    from paretune.study.plan_bench import bench_plan as measure
    from paretune.study.plan_bench import report_lines

    notes = Console(stderr=True)
    found = measure(
        listed, folder, lambda line: notes.print(line, style="dim", highlight=False, markup=False), only, most
    )
    print("\n".join(report_lines(found)))
    say_json(json_line, found["summary"])


def add_to(app: typer.Typer, bench: typer.Typer) -> None:
    """Put these verbs into the command line and its benches."""
    app.command()(plan)
    bench.command("plan")(bench_plan)
