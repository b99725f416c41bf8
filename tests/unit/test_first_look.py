"""What is refused in about a second: the same lines as the whole check, without PyTorch or transformers.

PYTHONPATH=src python -m pytest tests/unit/test_first_look.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_families import FAMILY_MODELS, write_family

from paretune.core.errors import UsageError
from paretune.models.check import check_model
from paretune.models.limits import positions_of
from paretune.models.loading import load_outline
from paretune.models.sources import config_of
from paretune.models.surgery import position_table, usable_positions
from paretune.models.tiny import write_tiny_bert
from paretune.study.first_look import first_look

CALLS = """
import sys
from paretune.cli import main
for name in sys.argv[1:]:
    sys.argv = ["paretune", "study", name]
    try:
        main()
    except SystemExit as left:
        print(left.code, "torch" in sys.modules, "transformers" in sys.modules)
"""
STUDY = '[study]\nname = "s"\n[model]\nsource = "path:{source}"\n[data]\ntrain = "path:{data}"\n{more}[methods.full]\n'


def changed(folder: Path, file: str, **more: object) -> Path:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **more}), encoding="utf-8")
    return folder


def test_each_refusal_needs_neither_torch_nor_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six faults of a model and two of data, one after another in one process: one line each, exit code 2."""
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    rows = {"fine": "xy", "one": "x", "many": [str(i) for i in range(20)]}
    for name, labels in rows.items():
        lines = "".join(f"some text {i},{labels[i % len(labels)]}\n" for i in range(20))
        (tmp_path / f"{name}.csv").write_text("text,label\n" + lines, encoding="utf-8")
    tiny = write_tiny_bert(tmp_path / "tiny")
    own = changed(
        write_tiny_bert(tmp_path / "own"),
        "config.json",
        model_type="own-bert",
        auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"},
    )
    small = changed(write_tiny_bert(tmp_path / "small"), "config.json", vocab_size=10)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    cases = {
        "is one class only": (tiny, "one", "", "one class only ('x')"),
        "has a class a row": (tiny, "many", "", "20 examples for 20 classes"),
        "has too many tokens": (tiny, "fine", "[train]\nmax_tokens = 9999\n", "max_tokens = 9999"),
        "has too few rows": (small, "fine", "", "its embeddings 10 rows"),
        "brings code": (own, "fine", "", "wants code from its own folder to be run"),
        "is an adapter": (tmp_path / "adapter", "fine", "", "is an adapter of peft"),
        "is not there": (tmp_path / "nowhere", "fine", "", "there is no folder"),
    }
    for name, (source, data, more, _) in cases.items():
        (tmp_path / f"{name}.toml").write_text(STUDY.format(source=source, data=f"{data}.csv", more=more))
    program = [sys.executable, "-c", CALLS, *(str(tmp_path / f"{name}.toml") for name in cases)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["2 False False"] * len(cases), done.stderr
    for line, (*_, wanted) in zip(done.stderr.splitlines(), cases.values(), strict=True):
        assert line.startswith("paretune: ") and wanted in line
    for name in ("has too many tokens", "has too few rows", "brings code"):  # the whole check says the same
        source = cases[name][0]
        with pytest.raises(UsageError) as early:
            first_look(tmp_path / f"{name}.toml", None)
        with pytest.raises(UsageError) as whole:
            check_model(f"path:{source}", 9999)
        assert str(early.value) == str(whole.value)


@pytest.mark.parametrize("kind", FAMILY_MODELS)
def test_positions_by_the_configuration_are_those_of_the_model(tmp_path: Path, kind: str) -> None:
    """Where config.json tells the positions of a family, the built model has as many; elsewhere it is not asked."""
    source = f"path:{write_family(kind, tmp_path / kind)}"
    told = positions_of(config_of(source))
    if told is not None:
        outline = load_outline(source)
        table = position_table(outline)
        assert told[0] == usable_positions(outline)
        assert told[1] == (told[0] if table is None else table.num_embeddings)
    else:
        assert kind in ("deberta-v2", "t5", "mpnet", "gemma3_text")


def test_what_it_cannot_judge_is_left_to_the_whole_check(tmp_path: Path) -> None:
    """A broken study file, a table that is none, an unknown task: no word of it here."""
    file = tmp_path / "s.toml"
    good = STUDY.format(source=write_tiny_bert(tmp_path / "tiny"), data="gone.csv", more="")
    for text in (
        "[study",
        "",
        good,
        good.replace("[data]", "[datta]"),
        good + "[task]\nkind = 5\n",
        "train = 3\n" + good,
    ):
        file.write_text(text)
        first_look(file, None)
    first_look(tmp_path / "gone.toml", None)
