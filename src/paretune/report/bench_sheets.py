"""The table of a published bench line: every figure with what it is, and when and on which machine it was measured.

Not here: reading a line (`bench_lines.py`), rules over its figures (`claims.py`). A figure that this list does not know
stands under its own name.

    bench_sheet(bench_lines(Path("results/bench"))["serve"], Words("en"))
"""

from __future__ import annotations

from paretune.report.bench_lines import BenchLine
from paretune.report.sheets import Sheet, plain
from paretune.report.wording import Words


def bench_sheet(line: BenchLine, words: Words) -> Sheet:
    """Figures in the order of the line."""
    names = figure_names(words)
    rows = [
        [names.get(name, name), figure_text(value, words) if value is not None else words.say("not measured")]
        for name, value in line.figures.items()
    ]
    sheet = plain(words.say("Measured figures"), [words.say("figure"), words.say("value")], rows)
    return Sheet(sheet.title, sheet.columns, sheet.rows, (_note(line, words),))


def _note(line: BenchLine, words: Words) -> str:
    """When it was measured and on what, as far as the line says it."""
    processor = line.processor
    if processor and line.cores is not None:
        cores = words.plural("{n} core", "{n} cores", line.cores)
        processor = f"{processor}, {cores}"
    known = "; ".join(part for part in (line.date, processor) if part)
    if not known:
        return words.say("One measurement; when and on what it does not say.")
    return words.say("One measurement: {when}.", {"when": known})


def figure_text(value: float | int, words: Words) -> str:
    """A count as it is, a ratio with three decimals, a small share with four."""
    if value == round(value):
        return words.count(round(value))
    return words.number(value, 3 if abs(value) >= 0.1 else 4)


def figure_names(words: Words) -> dict[str, str]:
    """What the figures of `paretune bench serve` and of the container's check are."""
    return {
        "requests_per_second": words.say("requests a second through the service"),
        "mixed_ratio": words.say("a batch mixed over all adapters ÷ a batch of one adapter, throughput"),
        "peer_ratio": words.say("mixed batch ÷ the same in PEFT, like for like, throughput"),
        "peer_ratio_defaults": words.say("mixed batch ÷ the same in PEFT with its defaults, throughput"),
        "overhead_ratio": words.say("engine called directly ÷ the service, requests a second"),
        "p95_ratio": words.say("95th percentile of latency under load ÷ median without load"),
        "overload_goodput": words.say("requests answered in time at three times the capacity, a second ÷ capacity"),
        "cliff": words.say("as many adapters as slots ÷ more adapters than slots, throughput"),
        "memory_growth": words.say("growth of memory after many loads and unloads, share"),
        "ready_ratio": words.say("start until ready ÷ import of torch and reading of the weights"),
        "generator_cpu_share": words.say("share of a core that the load generator took"),
        "compared_runs": words.say("runs compared"),
        "differing_predictions": words.say("share of predictions that differ"),
        "largest_difference": words.say("largest difference of a method's score"),
        "differing_conclusions": words.say("conclusions that differ"),
    }
