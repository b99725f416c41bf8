"""Makes what a user brings to the image, for its check: a small certified bundle and a file with a hashed key.

Not here: anything about quality; the texts are made up. The bundle is trained over the model that the image carries,
and exported by the project's own commands, so that the check proves the whole way.

    python deploy/check_inputs.py build/container/check
"""

import csv
import random
import shutil
import sys
from pathlib import Path

from rich.console import Console

from paretune.core.errors import ParetuneError
from paretune.export.export import export
from paretune.serve.keys import make_key
from paretune.study.design import read_study_file
from paretune.study.progress import Terminal
from paretune.study.runner import run_study

TEXTS = {
    "delivery": ("the parcel", "the courier", "shipping", "the delivery", "my order"),
    "quality": ("the battery", "the screen", "the sound", "the case", "the keyboard"),
}
SAID = ("came late", "is broken", "was fine", "took weeks", "failed twice", "is great", "got lost", "surprised me")
ENDS = ("again", "this time", "as always", "I think", "for once", "sadly", "luckily", "in the end")

STUDY = """\
[study]
name = "check"
control = "lora"
seeds = [0]
search = [1.0]

[model]
source = "asset:minilm-l6"

[data]
train = "path:comments.csv"

[train]
epochs = 2
batch_size = 8
max_tokens = 32

[methods.lora]
kind = "lora"
rank = 4
"""


def write_comments(path: Path) -> None:
    """All made-up comments in an order that is always the same."""
    rows = [
        (f"{subject} {said} {end}", label)
        for label, subjects in TEXTS.items()
        for subject in subjects
        for said in SAID
        for end in ENDS
    ]
    random.Random(0).shuffle(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("text", "label"), *rows[:320]])


def make(folder: Path) -> None:
    """Fill a folder: `bundles/check/`, `keys.toml`, and `key` with the one key in it.

    Raises:
        ParetuneError: the model is not to be had, or the bundle earned no certificate.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bundles").mkdir(parents=True)
    write_comments(folder / "comments.csv")
    (folder / "study.toml").write_text(STUDY)
    study = read_study_file(folder / "study.toml")
    ran = run_study(study, folder / "runs", Terminal(Console(stderr=True)), "deploy/check_inputs.py")
    found = export(ran.path, folder / "bundles" / "check", best=True, inference=False)
    for file in found.path.iterdir():
        file.chmod(0o644)  # the user of the image is another than whoever exported
    (folder / "key").write_text(make_key(folder / "keys.toml", "check", ["classify", "metrics"]) + "\n")
    print(f"{found.path}: {found.method}, digest {(found.digest or '')[:12]}")


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]))
    except ParetuneError as error:
        sys.exit(f"check_inputs: {error}")
