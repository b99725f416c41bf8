"""The train bench's arithmetic over fixed samples, its window, its peer, and the page made of its published lines."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from paretune.core.config import JsonObject
from paretune.core.errors import RecordError, UnknownNameError
from paretune.measure.flops import Arithmetic
from paretune.measure.speed import Sample, Window, Work
from paretune.records.schema import PhaseCost
from paretune.study import bench_train
from paretune.study.bench_train_summary import Pair, best_setting, report_lines, summary

ROOT = Path(__file__).parents[2]
COUNTED = Arithmetic(weights=1000, passed=1000, learning=0, low_rank=50, width=4, blocks=2, passed_blocks=2)
KEYS = {
    *("ratio", "ratio_best_peer", "roofline_fraction", "ours_tokens_per_second", "peer_tokens_per_second"),
    *("ours_peak_memory_bytes", "peer_peak_memory_bytes", "memory_ratio"),
}


def _sample(rate: float, peak: int = 500, imports: int = 100, padded: float = 1.0) -> Sample:
    """A window of two seconds."""
    tokens = round(2 * rate)
    return Sample(
        tokens=tokens, padded_tokens=round(tokens * padded), squares=10 * tokens, examples=4, steps=2, seconds=2.0,
        largest_batch_tokens=64, row_tokens=999, imports_bytes=imports, peak_bytes=peak, precision="bf16",
        trainable_parameters=7,
    )  # fmt: skip


def _pairs(ours: list[float], defaults: list[float], best: list[float]) -> list[Pair]:
    return [
        Pair(_sample(a, peak=300, padded=1.05), (9e6, 1e7), {"defaults": _sample(b, 900, 200, 1.5), "best": _sample(c)})
        for a, b, c in zip(ours, defaults, best, strict=True)
    ]


def test_ratios_are_medians_of_the_pairs_own() -> None:
    """10, 12 and 2 times the defaults: 10; the slow middle pair, in which all were slow, moves nothing."""
    found = summary(_pairs([1000, 120, 1000], [100, 10, 500], [250, 60, 400]), COUNTED, None)
    assert found.keys() >= KEYS
    assert found["ratio"] == 10
    assert found["ratio_best_peer"] == 2.5
    assert (found["ours_tokens_per_second"], found["peer_tokens_per_second"]) == (1000, 100)
    assert found["pairs"] == 3


def test_the_best_peer_may_be_the_one_with_its_defaults() -> None:
    """As on a machine without bf16."""
    pairs = _pairs([300, 300], [100, 100], [50, 60])
    assert best_setting(pairs) == "defaults"
    found = summary(pairs, COUNTED, None)
    assert (found["best_peer"], found["ratio_best_peer"], found["ratio"]) == ("defaults", 3, 3)
    assert summary(_pairs([300], [100], [150]), COUNTED, None)["best_peer"] == "best"


def test_memory_is_compared_above_the_imports_and_said_whole() -> None:
    """Ours 300 − 100, the defaults 900 − 200, at best 500 − 100, full fine-tuning 1100 − 100."""
    found = summary(_pairs([300], [100], [150]), COUNTED, _sample(50, peak=1100))
    assert found["memory_ratio"] == pytest.approx(200 / 700)
    assert found["memory_ratio_best_peer"] == pytest.approx(200 / 400)
    assert found["memory_ratio_stock_full"] == pytest.approx(200 / 1000)
    assert (found["ours_peak_memory_bytes"], found["peer_peak_memory_bytes"]) == (300, 900)
    assert found["stock_full_peak_memory_bytes"] == 1100
    assert (found["ours_padding_ratio"], found["peer_padding_ratio"]) == pytest.approx((1.05, 1.5))


def test_the_roofline_fraction_is_useful_arithmetic_over_the_higher_ceiling() -> None:
    """By hand, a token: 4·1000 for the weights, 12·4·2·10 for attention; padding earns nothing."""
    found = summary(_pairs([1000], [100], [150]), COUNTED, None)
    assert found["useful_flops_per_token"] == 4000 + 960
    assert found["roofline_fraction"] == pytest.approx(1000 * 4960 / 1e7)
    assert found["ceiling_flops_per_second"] == 1e7


def test_without_a_peer_there_are_no_ratios() -> None:
    """Its figures are None, ours stay, and the lines for a terminal say so."""
    found = summary([Pair(_sample(1000), (1e7, 1e7), {})], COUNTED, None)
    assert all(found[name] is None for name in ("ratio", "ratio_best_peer", "memory_ratio", "peer_tokens_per_second"))
    assert found["ours_tokens_per_second"] == 1000
    about = {"model": "m", "method": "lora", "data": "d", "batch_size": 16, "max_tokens": 32, "seconds": 2.0}
    assert "not measured" in "\n".join(report_lines({**about, **found}))


def test_a_window_begins_after_the_warm_up_and_ends_with_a_step() -> None:
    """Two warm steps are not counted but for the largest batch; the step that passes 10 s is."""
    now = iter([100.0, 103.0, 107.0, 112.0, 114.0])
    window = Window(seconds=10, warm_steps=2, clock=lambda: next(now))
    works = [Work(tokens=10 * n, padded=12 * (6 - n), squares=n, examples=1) for n in range(1, 6)]
    assert [window.step(work) for work in works] == [False, False, False, False, True]

    class Costs:
        memory_after_imports_bytes = 5

        def costs(self) -> list[PhaseCost]:
            peaks = {"load": 7, "tokenize": 6, "step": 9, "eval": 8}
            return [PhaseCost(phase=one, seconds=1, cpu_seconds=1, peak_memory_bytes=peaks[one]) for one in peaks]

    found = window.sample(Costs(), 1, "fp32", 2)  # pyright: ignore[reportArgumentType]
    assert (found.tokens, found.squares, found.steps, found.seconds) == (30 + 40 + 50, 12, 3, 11.0)
    assert (found.largest_batch_tokens, found.peak_above_imports_bytes) == (60, 4)
    assert found.tokens_per_second == pytest.approx(120 / 11)


def test_an_unknown_peer_is_refused() -> None:
    """With the nearest name."""
    with pytest.raises(UnknownNameError, match=r"peer 'peft-trainr'.*did you mean 'peft-trainer'"):
        bench_train.peer_script("peft-trainr")


def test_the_peer_is_found_beside_the_package_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder in a checkout; the working folder's own comes first; None where the package lies alone."""
    monkeypatch.chdir(tmp_path)
    assert bench_train.peer_script("peft-trainer") == ROOT / "benchmarks" / "peer_speed.py"
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "peer_speed.py").touch()
    assert bench_train.peer_script("peft-trainer") == tmp_path / "benchmarks" / "peer_speed.py"
    (tmp_path / "benchmarks" / "peer_speed.py").unlink()
    monkeypatch.setattr(bench_train.paretune, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert bench_train.peer_script("peft-trainer") is None


def test_a_record_names_no_folder_of_the_machine() -> None:
    """Of a local file the name alone; an asset as it is."""
    assert bench_train.shown("path:/home/someone/data/train.csv") == "path:train.csv"
    assert bench_train.shown("asset:reuters-r8") == "asset:reuters-r8"


@pytest.fixture
def performance(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/performance.py, which is no part of the package."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("performance")


def _published(folder: Path, name: str, line: JsonObject) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(line), encoding="utf-8")


def test_the_page_says_what_was_not_measured(performance: ModuleType, tmp_path: Path) -> None:
    """Without files every case, three models by two methods, in each of the three tables."""
    page = performance.performance_page(tmp_path)
    assert page.count("| not measured |") == 18
    assert "GiB" not in page


def test_the_page_shows_what_was(performance: ModuleType, tmp_path: Path) -> None:
    """Figures and machine of the record in their own row; another model's file gets a row of its own."""
    line = {
        "model": "asset:minilm-l6", "method": "lora", "data": "asset:reuters-r8", "batch_size": 16, "seconds": 60.0,
        "longest_tokens": 256, "date": "2026-11-28", "machine": {"processor": "A Chip", "cores": 2, "bf16": True},
        **summary(_pairs([1000], [100], [150]), COUNTED, _sample(50, peak=2_300_000_000)),
    }  # fmt: skip
    _published(tmp_path, "train-minilm-l6-lora", line)
    _published(tmp_path, "train-mine-full", {**line, "model": "hub:me/mine", "method": "full"})
    page = performance.performance_page(tmp_path)
    speed, memory, how = (
        next(one for one in part.splitlines() if "minilm-l6" in one) for part in page.split("## ")[1:4]
    )
    assert speed.startswith("| `asset:minilm-l6` | lora | 10.0 | 6.67 | 0.496 | 1000 | 100 | 150 |")
    assert "| 64 / 64 |" in memory
    assert "| 1 of 60 s |" in how and "A Chip, 2 cores, bf16" in how and "256 tokens" in how
    assert page.count("| `hub:me/mine` | full |") == 3
    assert page.count("| not measured |") == 15


def test_the_page_shows_quality_and_frozen_blocks(performance: ModuleType, tmp_path: Path) -> None:
    """The verdict is the line's; a difference below zero has a minus sign."""
    found = {"seeds": 10, "paretune_accuracy": 0.9705, "peer_accuracy": 0.9725, "margin": 0.01, "difference": -0.002}
    methods = {
        "lora-r8": {**found, "low": -0.004, "high": 0.0, "equivalent": True},
        "full": {**found, "low": -0.014, "high": 0.01, "equivalent": False},
    }
    _published(tmp_path, "equivalence", {"date": "2026-11-29", "machine": {}, **methods})
    ratios = {name: {"training_ratio": 12.34} for name in ("head", "last1", "last2")}
    _published(tmp_path, "frozen-blocks", {"study_ratio": 2.0, "equal_bits": False, **ratios})
    page = performance.performance_page(tmp_path)
    both = "| 10 | 0.9705 | 0.9725 | −0.0020 [−0.0"
    assert f"| lora-r8 {both}040 … +0.0000] | ±0.010 | equivalent |" in page
    assert f"| full {both}140 … +0.0100] | ±0.010 | not shown to be equivalent |" in page
    assert "| last2 | 12.3 |" in page and "Predictions: NOT equal" in page


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_a_file_that_is_no_line_is_refused(performance: ModuleType, tmp_path: Path, text: str) -> None:
    """Rather than left out."""
    (tmp_path / "train-minilm-l6-full.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match="the last line of a bench"):
        performance.performance_page(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peer", "unslot"], "peer 'unslot'"),
        (["--model", "asset:minilm"], "did you mean 'minilm-l6'?"),
        (["--model", "gpt"], "asset:NAME, path:FOLDER"),
        (["--seconds", "0"], "--seconds"),
        (["--pairs", "0"], "--pairs"),
        (["--method", "qlora"], "--method"),
        (["--data", "nowhere.csv"], "did you mean 'path:nowhere.csv'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(refused: Callable[..., str], arguments: list[str], said: str) -> None:
    """Nothing is trained before it is said."""
    assert said in refused("bench", "train", *arguments)


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Path
) -> Callable[..., str]:
    """Runs the command line to its refusal; returns the one line of standard error."""
    from paretune import cli

    def call(*arguments: str) -> str:
        given = arguments if "--model" in arguments else (*arguments, "--model", f"path:{tiny_model}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["paretune", *given])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("paretune: ")]
        assert stop.value.code == 2 and len(lines) == 1
        return lines[0]

    return call
