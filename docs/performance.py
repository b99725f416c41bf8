"""The page docs/performance.md, made of the published lines of the benches of training.

Not here: measuring, and any figure of its own; a case without its file is "not measured". `generate.py` writes it.

    performance_page(Path("results/bench"))
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipe_tables import table

from paretune.core.config import JsonObject
from paretune.core.errors import RecordError, said
from paretune.core.units import size_text

MISSING = "not measured"
NO_FIGURE = "–"
INTRODUCTION = """\
How fast and in how little memory paretune trains, beside plain `peft` and `transformers.Trainer` on the same rows, with
the same batch size, tokens, AdamW and, for LoRA, rank 8 on all linear maps. Each figure is the median over pairs of
processes that were run in turn on an otherwise idle machine.

- **stock** is the peer with its defaults: fp32, the model's own dropout, random order. **best** is the faster of that
  and bf16 autocast with batches of like length.
- **tokens a second** counts real tokens, not padding.
- **roofline fraction** is useful arithmetic a second over the matrix ceiling: the model's own products in the batch's
  own size, by torch or by our kernels, whichever is faster, measured in the same minute. Useful are 4 (LoRA) or 6
  (full) FLOP for each weight of the blocks and token, and attention; not the embeddings, the updates' own products,
  padding, or what is computed twice.
- **memory** ratios are of peaks above the process's size after its imports; the sizes beside them are whole peaks. The
  peak comes with the largest batch, whose positions (padding included) are given for both sides."""
NO_LORA = "LoRA only"


@dataclass(frozen=True)
class Case:
    """A file of results/bench that is expected, and the command that makes its line."""

    file: str
    model: str
    method: str
    options: str

    @property
    def command(self) -> str:
        return f"paretune bench train --model {self.model} --method {self.method}{self.options} --json"


ENCODERS_AND_DECODER = (
    ("asset:minilm-l6", ""),
    ("asset:e5-small", " --data path:FOLDER/train.csv --label emotion --max-tokens 64"),
    ("asset:smollm2-135m", " --seconds 120"),
)
CASES = tuple(
    Case(f"train-{model.partition(':')[2]}-{method}", model, method, options)
    for model, options in ENCODERS_AND_DECODER
    for method in ("lora", "full")
)
OTHERS = (  # command → file
    ("paretune bench plan --json", "plan"),
    ("python benchmarks/peer_trainer.py compare --stock runs/engine-r8", "equivalence"),
    ("python benchmarks/frozen_blocks.py", "frozen-blocks"),
)
Cell = Callable[[JsonObject], str]


def number(name: str) -> Cell:
    """A figure with three digits."""
    return lambda line: NO_FIGURE if line.get(name) is None else format(line[name], "#.3g").rstrip(".")


def whole(name: str) -> Cell:
    return lambda line: NO_FIGURE if line.get(name) is None else format(line[name], ".0f")


def size(name: str) -> Cell:
    return lambda line: NO_FIGURE if line.get(name) is None else size_text(line[name])


SPEED: dict[str, Cell] = {
    "× stock": number("ratio"),
    "× best": number("ratio_best_peer"),
    "roofline fraction": number("roofline_fraction"),
    "tokens a second": whole("ours_tokens_per_second"),
    "stock": whole("peer_tokens_per_second"),
    "best": whole("best_peer_tokens_per_second"),
    "positions ÷ tokens": number("ours_padding_ratio"),
    "stock's": number("peer_padding_ratio"),
}
MEMORY: dict[str, Cell] = {
    "peak": size("ours_peak_memory_bytes"),
    "stock": size("peer_peak_memory_bytes"),
    "best": size("best_peer_peak_memory_bytes"),
    "÷ stock": number("memory_ratio"),
    "÷ best": number("memory_ratio_best_peer"),
    "÷ stock full fine-tuning": lambda line: (
        NO_LORA if line.get("method") == "full" else number("memory_ratio_stock_full")(line)
    ),
    "largest batch, ours and stock": lambda line: " / ".join(
        whole(f"{side}_largest_batch_tokens")(line) for side in ("ours", "peer")
    ),
}
HOW: dict[str, Cell] = {
    "data": lambda line: str(line.get("data", NO_FIGURE)),
    "texts": whole("rows"),
    "batch": whole("batch_size"),
    "longest text": lambda line: f"{line['longest_tokens']} tokens" if "longest_tokens" in line else NO_FIGURE,
    "pairs": lambda line: f"{line['pairs']} of {line['seconds']:g} s" if "pairs" in line else NO_FIGURE,
    "ceiling": lambda line: (
        f"{line['ceiling_flops_per_second'] / 1e9:.0f} GFLOP/s" if "ceiling_flops_per_second" in line else NO_FIGURE
    ),
    "date": lambda line: str(line.get("date", NO_FIGURE)),
    "machine": lambda line: machine(line.get("machine")),
}


def machine(found: object) -> str:
    """What a record says of the machine, in a few words."""
    if not isinstance(found, dict):
        return NO_FIGURE
    known: JsonObject = found
    parts = [str(known.get("processor", "")), f"{known.get('cores')} cores"]
    if isinstance(size := known.get("memory_bytes"), int):
        parts.append(f"{size / 2**30:.0f} GiB")
    parts.append("bf16" if known.get("bf16") else "no bf16")
    return ", ".join(part for part in parts if part)


def read_line(file: Path) -> JsonObject | None:
    """The line of a file; None where there is none.

    Raises:
        RecordError: the file holds no JSON object.
    """
    if not file.exists():
        return None
    try:
        found: object = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(said(f"{file} cannot be read: {error}", "the last line of a bench")) from error
    if not isinstance(found, dict):
        raise RecordError(said(f"{file} holds no object", "the last line of a bench"))
    return found


def section(title: str, cells: dict[str, Cell], lines: dict[str, JsonObject | None]) -> list[str]:
    """A table of all cases, expected ones first."""
    known = {case.file: (case.model, case.method) for case in CASES}
    rows: list[list[str]] = []
    for file, line in lines.items():
        model, method = known.get(file) or (str((line or {}).get("model")), str((line or {}).get("method")))
        filled = [MISSING] + [""] * (len(cells) - 1) if line is None else [cell(line) for cell in cells.values()]
        rows.append([f"`{model}`", method, *filled])
    return [f"## {title}", table(["model", "method", *cells], rows)]


SHORT_HEADS = {
    "en": ("model", "method", "× stock", "× its best", "peak memory", "stock's"),
    "ru": ("модель", "метод", "быстрее обычного, раз", "быстрее лучшего, раз", "пик памяти", "у обычного"),
}


def short_table(folder: Path, lang: str) -> str:
    """For a README: how many times faster, and in how much memory; only what was measured."""
    cells = (*list(SPEED.values())[:2], MEMORY["peak"], MEMORY["stock"])
    lines = [(case, read_line(folder / f"{case.file}.json")) for case in CASES]
    rows = [[f"`{case.model}`", case.method, *(cell(line) for cell in cells)] for case, line in lines if line]
    if lang == "ru":
        rows = [[one.replace(".", ",").replace(" GiB", " ГиБ").replace(" MiB", " МиБ") for one in row] for row in rows]
    return table(SHORT_HEADS[lang], rows)


PLAN = {  # figure of `paretune bench plan` → what it says, and what was wanted of it
    "memory_error_median": ("peak memory, half of the combinations are off by at most", "5 %"),
    "memory_error_p90": ("peak memory, nine of ten are off by at most", "10 %"),
    "worst_under_prediction": ("peak memory, the most that a combination needed above what was predicted", "5 %"),
    "time_error_median": ("seconds of the steps, half are off by at most", "15 %"),
    "held_out_memory_error_median": ("peak memory, half of the combinations held out", "5 %"),
    "held_out_time_error_median": ("seconds, half of the combinations held out", "15 %"),
    "above_imports_error_median": ("memory above the imports, half are off by at most", ""),
    "above_imports_error_p90": ("memory above the imports, nine of ten", ""),
}


def plan_section(line: JsonObject | None) -> list[str]:
    """How right the planner was."""
    if line is None:
        return ["## The planner", MISSING]
    rows = [[text, f"{100 * float(str(line[name])):.1f} %", wanted] for name, (text, wanted) in PLAN.items()]
    counts = f"{line['combinations']} combinations of model, method, batch, length and number format"
    held = f"{line['held_out']} of them held out (`benchmarks/plan_combinations.toml`)"
    return ["## The planner", f"{counts}, {held}.", table(["error", "measured", "wanted"], rows)]


QUALITY = """\
The same data, seeds and learning rates, trained by paretune with its defaults (bf16, no dropout, batches of like
length) and by `transformers.Trainer` with its own (fp32, the model's dropout, random order). Difference: paretune less
the Trainer, with the 95 % interval over seeds and test examples together; equivalent: two one-sided tests at 5 % put
it inside the margin."""


def quality_section(line: JsonObject | None) -> list[str]:
    """Whether the engine trains as well as the stock trainer."""
    if line is None:
        return ["## Quality beside the stock trainer", MISSING]
    rows: list[list[str]] = []
    for method, found in line.items():
        if not isinstance(found, dict) or "difference" not in found:
            continue
        one: JsonObject = found
        difference, low, high = (signed(float(str(one[name]))) for name in ("difference", "low", "high"))
        ours, theirs = (f"{float(str(one[name])):.4f}" for name in ("paretune_accuracy", "peer_accuracy"))
        verdict = "equivalent" if one["equivalent"] else "not shown to be equivalent"
        margin = f"±{float(str(one['margin'])):.3f}"
        rows.append([method, str(one["seeds"]), ours, theirs, f"{difference} [{low} … {high}]", margin, verdict])
    head = ["method", "seeds", "accuracy, paretune", "accuracy, Trainer", "difference [95 %]", "margin", "verdict"]
    return ["## Quality beside the stock trainer", QUALITY, table(head, rows)]


FROZEN = """\
A study that trains only the head, or the last blocks, computes what the frozen blocks give once and keeps it on the
disk for all its epochs, seeds and rates. How many times faster all trainings of a method are than without
(`keep_frozen = false`), the making of what is kept counted once, over three rates, five seeds and four epochs of 1,000
documents. `asset:minilm-l6` has six blocks; a step back through one takes about twice the time forward. So with the
last k learning some 3k of 6 + 2k parts of the work remain: about 2.7 times less for one block, 1.7 for two, however it
is kept."""
FROZEN_METHODS = ("head", "last1", "last2")


def frozen_section(line: JsonObject | None) -> list[str]:
    """What it is worth that frozen blocks are computed once a study."""
    if line is None:
        return ["## Frozen blocks", MISSING]
    rows: list[list[str]] = []
    for method in FROZEN_METHODS:
        found = line.get(method)
        if isinstance(found, dict):
            one: JsonObject = found
            rows.append([method, number("training_ratio")(one)])
    same = "equal to the last bit" if line["equal_bits"] else "NOT equal"
    whole_study = f"The whole study, processes included, took {number('study_ratio')(line)} times less time."
    return ["## Frozen blocks", FROZEN, table(["method", "× faster"], rows), f"{whole_study} Predictions: {same}."]


def signed(value: float) -> str:
    """With a sign, and a real minus."""
    return f"{value:+.4f}".replace("-", "−")


def performance_page(folder: Path) -> str:
    """The page's text without its mark."""
    files = [*(case.file for case in CASES), *sorted(one.stem for one in folder.glob("train-*.json"))]
    lines = {file: read_line(folder / f"{file}.json") for file in dict.fromkeys(files)}
    measured = [*((case.command, case.file) for case in CASES), *OTHERS]
    commands = "\n".join(
        f"{command} | python benchmarks/stamp.py > results/bench/{file}.json" for command, file in measured
    )
    return "\n\n".join(
        [
            "# Performance of training",
            INTRODUCTION,
            *section("Speed", SPEED, lines),
            *section("Memory", MEMORY, lines),
            *section("Where and how", HOW, lines),
            *quality_section(read_line(folder / "equivalence.json")),
            *frozen_section(read_line(folder / "frozen-blocks.json")),
            *plan_section(read_line(folder / "plan.json")),
            "## Measuring it again",
            "On a machine that does nothing else, from the checkout's root; `make docs` then writes this page anew. "
            "What goes before the comparison with the Trainer stands in `studies/engine-r8.toml`; it takes hours.",
            f"```sh\n{commands}\n```",
        ]
    )
