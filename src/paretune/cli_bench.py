"""The bench of training; `cli.py` puts it beside the other benches.

Not here: what it does. Heavy imports stay inside the verb.

    paretune bench train --model asset:minilm-l6 --method lora --json
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from paretune.cli_options import JsonFlag, say_json


def bench_train(
    model: Annotated[str, typer.Option("--model", help="Base model.")] = "asset:minilm-l6",
    data: Annotated[str, typer.Option("--data", help="Rows: asset:NAME or path:FILE.")] = "asset:reuters-r8",
    text: Annotated[str, typer.Option("--text", help="With path: column of the text.")] = "text",
    label: Annotated[str, typer.Option("--label", help="With path: column of the label.")] = "label",
    method: Annotated[
        Literal["lora", "full"], typer.Option("--method", help="Low-rank updates (rank 8, all linear maps), or all.")
    ] = "lora",
    peer: Annotated[str, typer.Option("--peer", help="What ours is compared with.")] = "peft-trainer",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long each process trains.")] = 60.0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts of one step.")] = 16,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=4, help="Longer texts are cut.")] = 256,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Turns; figures are medians over them.")] = 3,
    json_line: JsonFlag = False,
) -> None:
    """Measure training on this machine: speed, memory and share of the matrix ceiling, in turn with plain peft."""
    from rich.console import Console

    from paretune.study.bench_train import BenchPlan
    from paretune.study.bench_train import bench_train as measure
    from paretune.study.bench_train_summary import report_lines

    notes = Console(stderr=True)
    found = measure(
        BenchPlan(model, data, text, label, method, peer, seconds, batch_size, max_tokens, pairs),
        lambda line: notes.print(line, style="dim", highlight=False, markup=False),
    )
    print("\n".join(report_lines(found)))
    say_json(json_line, found)


def add_to(bench: typer.Typer) -> None:
    """Put it into the benches."""
    bench.command("train")(bench_train)
