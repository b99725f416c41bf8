"""The verbs that export, serve and check a bundle; `cli.py` puts them beside the others.

Not here: what they do. Heavy imports stay inside the verbs.

    paretune export runs/demo --best --to bundle --out bundles/demo
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from paretune.cli_options import JsonFlag, LangOption, QuotingOption, language, quoting_of, say_json

OutOption = Annotated[Path, typer.Option("--out", help="Folder to write.", show_default=False)]
StoreOption = Annotated[Path, typer.Option("--store", help="Folder where the server keeps adapters and aliases.")]
STORE = Path("adapters-store")


def export(
    source: Annotated[Path, typer.Argument(help="A study's folder, or one run's.", show_default=False)],
    out: OutOption,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="A model: bundle, peft or merged. A study's records: csv, tensorboard, mlflow or trackio."
        ),
    ] = "bundle",
    best: Annotated[bool, typer.Option("--best", help="Take what the study's statistics support.")] = False,
    memory: Annotated[
        str | None, typer.Option("--memory", help='With --best: most peak memory of training, such as "1 GiB".')
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", help='With --best: most training time of one run, such as "5 min".')
    ] = None,
    target_risk: Annotated[
        float | None,
        typer.Option("--target-risk", help="Share of wrong answers for which the abstention threshold is fitted."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="With --to merged: also as int8, compared with fp32.")] = False,
    inference: Annotated[
        bool, typer.Option("--inference/--no-inference", help="Measure what answering costs, for the report.")
    ] = True,
    every: Annotated[bool, typer.Option("--measure-all", help="Measure it for every method of the study.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    lang: LangOption = None,
    json_line: JsonFlag = False,
) -> None:
    """Export a run as a bundle or for plain peft or transformers, or a study's records.

    A bundle is certified and ready to serve; records go to other tools whole, failed runs too.
    """
    from paretune.export.targets import FORMS, check_target

    used = {
        "--best": best,
        "--memory": memory is not None,
        "--time": time is not None,
        "--target-risk": target_risk is not None,
        "--int8": int8,
        "--no-inference": not inference,
        "--measure-all": every,
    }
    if check_target(to, used) not in FORMS:
        from paretune.export.records_command import records_command

        lines, tree = records_command(source, out, to, language(lang))
        print("\n".join(lines))
        say_json(json_line, tree)
        return
    from rich.console import Console

    from paretune.export.export_command import export_command

    notes = Console(stderr=True)
    lines, tree = export_command(
        source,
        out,
        to,
        best=best,
        memory=memory,
        time=time,
        lang=language(lang),
        int8=int8,
        force=force,
        target_risk=target_risk,
        inference=inference,
        every=every,
        say=lambda text: notes.print(text, style="dim", highlight=False, markup=False),
    )
    print("\n".join(lines))
    say_json(json_line, tree)
    if best and not tree["decided"]:
        raise typer.Exit(3)


def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(help="Bundles as FOLDER or NAME=FOLDER, or a folder of them; more may lie in the store."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; a public one needs keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option("--api-keys", help="File of keys; `paretune keys` makes one.")
    ] = None,
    store: StoreOption = STORE,
    slots: Annotated[int, typer.Option("--slots", min=1, max=64, help="Adapters in memory at once.")] = 16,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], typer.Option("--precision", help="Number format of the encoder.")
    ] = "auto",
    base: Annotated[
        str | None, typer.Option("--base", help="Base model to start with where there is no bundle yet.")
    ] = None,
    json_line: JsonFlag = False,
) -> None:
    """Serve bundles: an API with /docs, a web page, metrics. SIGTERM answers what was accepted and exits 0."""
    import logging
    import sys

    from paretune.serve.server import ServerOptions, named
    from paretune.serve.server import serve as run_server

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    options = ServerOptions(store, host, port, api_keys, slots, precision, base=base)
    code = run_server([named(one) for one in bundles or []], options, lambda line: print(line, flush=True))
    say_json(json_line, {"exit_code": code})
    raise typer.Exit(code)


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON, Parquet or text file.", show_default=False)],
    text: Annotated[
        str | None, typer.Option("--text", help='Column that holds the text; without it "text", or the only one.')
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write, of any of these kinds; NAME.labelled.EXT by default.")
    ] = None,
    encoding: Annotated[str, typer.Option("--encoding", help="Encoding of the file, such as cp1251.")] = "utf-8",
    separator: Annotated[str | None, typer.Option("--separator", help="Sign between columns, such as ;.")] = None,
    quoting: QuotingOption = None,
    header: Annotated[
        bool, typer.Option("--header/--no-header", help="Whether the first line names the columns.")
    ] = True,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], typer.Option("--precision", help="Number format of the encoder.")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    lang: LangOption = None,
    json_line: JsonFlag = False,
) -> None:
    """Label a file's texts by a bundle: its columns stay, prediction, probability, abstain, out_of_domain are added."""
    from rich.console import Console

    from paretune.serve.predict_command import predict_command

    notes = Console(stderr=True)
    with notes.status("reading") as status:
        lines, tree = predict_command(
            bundle,
            file,
            out,
            text,
            encoding=encoding,
            separator=separator,
            quoting=quoting_of(quoting),
            header=header,
            precision=precision,
            force=force,
            lang=language(lang),
            say=lambda done, rows: status.update(f"{done} / {rows}"),
        )
    print("\n".join(lines))
    say_json(json_line, tree)
    if tree["failed"]:
        raise typer.Exit(1)


def keys(
    file: Annotated[Path, typer.Argument(help="File of keys; made if it is not there.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name of the new key.", show_default=False)],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="classify, admin or metrics; may be repeated.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", min=1, help="Quota; none by default.")
    ] = None,
    json_line: JsonFlag = False,
) -> None:
    """Make an API key: its hash goes into FILE, the key is printed once."""
    from paretune.serve.keys import make_key

    made = make_key(file, name, scope or ["classify"], tokens_per_minute)
    print(made)
    say_json(json_line, {"name": name, "key": made, "file": str(file)})


def replay(
    receipt: Annotated[Path, typer.Argument(help="A receipt, or an answer that holds one (JSON).", show_default=False)],
    store: StoreOption = STORE,
    json_line: JsonFlag = False,
) -> None:
    """Compute an answer again from its receipt; exit code 1 if it comes out different or the receipt was edited."""
    from paretune.serve.receipts import replay as again

    found = again(receipt, store)
    if found.edited:
        print(f"{found.verdict}: {', '.join(found.edited)}")
    else:
        now = f"{found.receipt_label!r} then, {found.label!r} now"
        print(f"{found.verdict}: {now}; largest difference {found.difference:.2g} (tolerance {found.tolerance:.2g})")
    for reason in found.reasons:
        print(f"  {reason}")
    say_json(
        json_line,
        {"verdict": found.verdict, "label": found.label, "receipt_label": found.receipt_label,
         "difference": found.difference if math.isfinite(found.difference) else None, "tolerance": found.tolerance,
         "reasons": list(found.reasons), "edited": list(found.edited), "sealed": found.sealed},
    )  # fmt: skip
    if not found.agrees:
        raise typer.Exit(1)


def bot(
    api: Annotated[str, typer.Option("--api", help="Address of the service.")] = "http://127.0.0.1:8000",
    key_file: Annotated[Path | None, typer.Option("--key-file", help="File that holds the bot's API key.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the Telegram token; else PARETUNE_BOT_TOKEN.")
    ] = None,
    telegram_api: Annotated[str | None, typer.Option("--telegram-api", help="Another server of the Bot API.")] = None,
    state: Annotated[Path | None, typer.Option("--state", help="File that keeps the chats' choices.")] = None,
    json_line: JsonFlag = False,
) -> None:
    """Run the Telegram bot, a client of the service (extra `bot`)."""
    from paretune.serve.bot import TELEGRAM, BotSettings, read_key, read_token, run_bot

    token = read_token(token_file, os.environ)
    run_bot(BotSettings(api, read_key(key_file), token, telegram_api or TELEGRAM, state))
    say_json(json_line, {"exit_code": 0})


def bench_serve(
    adapters: Annotated[int, typer.Option("--adapters", min=2, help="Adapters in one batch, and slots.")] = 16,
    model: Annotated[str, typer.Option("--model", help="Base model.")] = "asset:minilm-l6",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long each load lasts.")] = 60.0,
    json_line: JsonFlag = False,
) -> None:
    """Measure the service on this machine: ratios of engine, served path and peft, side by side."""
    from rich.console import Console

    from paretune.serve.bench_serve import BenchPlan
    from paretune.serve.bench_serve import bench_serve as measure

    notes = Console(stderr=True)
    found = measure(
        BenchPlan(model=model, adapters=adapters, seconds=seconds),
        lambda text: notes.print(text, style="dim", highlight=False, markup=False),
    )
    for name, value in found.items():
        print(f"{name:24} {value if isinstance(value, dict | None) else format(value, '.3g')}")
    say_json(json_line, found)


def add_to(app: typer.Typer, bench: typer.Typer) -> None:
    """Put these verbs into the command line and its benches."""
    for verb in (export, predict, serve, keys, replay, bot):
        app.command()(verb)
    bench.command("serve")(bench_serve)
