"""Writes the study files of `lora-settings`: a D-optimal fraction of LoRA's settings, the same for both data sets.

All 576 settings at three learning rates and two seeds would take weeks on a laptop. 28 of them tell apart the main
effects of five factors and how target modules and adapted layers depend on each other (21 columns of a linear model);
the learning rate is searched for every setting. Rank and alpha's rule may depend on each other too, but that takes 15
more columns. Settings are labelled by their levels.

    python studies/lora_settings.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paretune.stats.designs import Setting, efficiency, fraction

FACTORS = {
    "rank": [1, 2, 4, 8, 16, 64],
    "alpha": ["16", "r", "2r", "rs16"],
    "targets": ["query_value", "attention", "mlp", "all_linear"],
    "layers": ["all", "upper_half", "last_two"],
    "dropout": [0.0, 0.1],
}
INTERACTIONS = [("targets", "layers")]
USUAL = {"rank": 8, "alpha": "2r", "targets": "all_linear", "layers": "all", "dropout": 0.0}
SETTINGS = 28
REUTERS = """train = "asset:reuters-r8"
test = "asset:reuters-r8"
train_rows = 1000
validation_rows = 250"""
EMOTIONS = """train = "path:train.csv"
test = "path:test.csv"
text = "text"
label = "emotion"
train_rows = 1500
validation_rows = 600"""


@dataclass(frozen=True)
class Case:
    """What a study of these settings is made on; `blocks` are the model's."""

    name: str
    flags: str
    model: str
    blocks: int
    data: str
    metric: str
    margin: float
    epochs: int
    max_tokens: int


CASES = (
    Case("lora-settings-r8", "", 'source = "asset:minilm-l6"', 6, REUTERS, "accuracy", 0.01, 4, 128),
    Case(
        "lora-settings-emotions",
        " --data PATH",
        'source = "asset:e5-small"\ntext_prefix = "query: "',
        12,
        EMOTIONS,
        "macro_f1",
        0.02,
        3,
        64,
    ),
)


def label(setting: Setting) -> str:
    """A method's name in the study: its levels, one after another."""
    rank, alpha, targets, layers, dropout = setting.values()
    return f"r{rank}-{alpha}-{targets}-{layers}" + ("-dropout" if dropout else "")


def table(setting: Setting, blocks: int) -> str:
    """The method's table of a study file."""
    rank = int(setting["rank"])
    alpha = {"16": 16, "r": rank, "2r": 2 * rank, "rs16": 16}[str(setting["alpha"])]
    lines = [f"[methods.{label(setting)}]", 'kind = "lora"', f"rank = {rank}", f"alpha = {alpha}"]
    if setting["alpha"] == "rs16":
        lines.append("rank_stabilised = true")
    if setting["targets"] != "all_linear":
        lines.append(f'targets = "{setting["targets"]}"')
    if setting["layers"] != "all":
        lines.append(f"layers = {blocks // 2 if setting['layers'] == 'upper_half' else 2}")
    if setting["dropout"]:
        lines.append(f"dropout = {setting['dropout']}")
    return "\n".join(lines)


def study(case: Case, settings: list[Setting]) -> str:
    """The whole file."""
    share = efficiency(settings, FACTORS, INTERACTIONS)
    head = f'''# paretune study studies/{case.name}.toml{case.flags}
# then, to share its records: paretune publish runs/{case.name}
# Written by studies/lora_settings.py, which says why: {SETTINGS} of 576 settings, D-efficiency {share:.2f} of them all.
# Two runners share the work: start the command twice, each on a core of its own (taskset -c 0, taskset -c 1).

[study]
name = "{case.name}"
question.en = "Which settings of LoRA matter, and which to take for how much memory and time?"
question.ru = "Какие настройки LoRA важны и какие выбрать при данной памяти и данном времени?"
metric = "{case.metric}"
margin = {case.margin}
control = "{label(USUAL)}"
seeds = [0, 1]
search = [0.333, 1.0, 3.0]
extensions = 0                 # the fixed rates alone, as it was published

[model]
{case.model}
pooling = "mean"

[data]
{case.data}

[train]
epochs = {case.epochs}
patience = 0                   # exactly so many epochs, as it was published
batch_size = 16
max_tokens = {case.max_tokens}
'''
    return "\n".join([head, *(f"{table(one, case.blocks)}\n" for one in settings)]).rstrip() + "\n"


def main() -> None:
    """Write both files beside this one."""
    settings = fraction(FACTORS, SETTINGS, seed=0, interactions=INTERACTIONS, wanted=[USUAL])
    for case in CASES:
        (Path(__file__).parent / f"{case.name}.toml").write_text(study(case, settings), encoding="utf-8")


if __name__ == "__main__":
    main()
