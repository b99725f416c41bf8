"""The bench's own arithmetic and its bundles; figures are not tested, that they are made of the right parts is."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.core.errors import RunError
from paretune.models.sources import ModelSpec
from paretune.serve.bench import Rates, Shop, answer_all, batches, cliff_rates, in_turn, mixed_rates, rows_over
from paretune.serve.bundle import read_bundle
from paretune.serve.engine import Engine, Row
from paretune.serve.synthetic import texts, write_synthetic


@pytest.fixture(scope="module")
def spec(tiny_model: Path) -> ModelSpec:
    return ModelSpec(source=f"path:{tiny_model}")


@pytest.fixture(scope="module")
def folders(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_synthetic(tmp_path_factory.mktemp("synthetic"), spec, adapters=5, rank=2, precision="fp32")


def test_synthetic_bundles_go_the_way_of_real_ones(folders: list[Path], spec: ModelSpec) -> None:
    """Each is read from disk with all its seals and passes the engine's check; no two are alike."""
    shop = Shop(folders)
    engine = Engine(spec, "fp32", fetch=shop.fetch)
    for folder in folders:
        engine.check(read_bundle(folder))
    assert len(set(shop.digests)) == 5
    rows = rows_over(engine, shop.digests, texts(spec.source, 1, 8, 12) * 5)
    assert len({outcome.probabilities for outcome in engine.run(rows)}) == 5


def test_texts_have_as_many_tokens_as_asked(spec: ModelSpec, folders: list[Path]) -> None:
    """Lengths lie in the range, special tokens in, and spread over it."""
    shop = Shop(folders)
    engine = Engine(spec, "fp32", fetch=shop.fetch)
    lengths = [one.length for one in engine.encode(shop.digests[0], texts(spec.source, 60, 10, 20))]
    assert min(lengths) >= 10
    assert max(lengths) <= 20
    assert len(set(lengths)) > 6


def test_ratios_are_medians_of_the_rounds_own_ratios() -> None:
    """One slow round, in which both ways are slow, does not move the ratio."""
    rates = Rates({"a": [100.0, 10.0, 90.0], "b": [200.0, 20.0, 100.0]})
    assert rates.ratio("a", "b") == 0.5
    assert rates.median("a") == 90.0


def test_ways_are_measured_in_turn() -> None:
    """Each way runs once unmeasured, then all in turn, A B A B."""
    calls: list[str] = []

    def way(name: str) -> int:
        calls.append(name)
        return 1

    rates = in_turn({"a": lambda: way("a"), "b": lambda: way("b")}, rounds=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert [len(found) for found in rates.tokens_per_second.values()] == [2, 2]


def test_batches_keep_order_and_bound() -> None:
    """Rows come once, in order, and only a row that is too long alone passes the bound."""
    rows = [Row("d", (1,) * length) for length in (3, 4, 9, 1, 1)]
    found = batches(rows, 8)
    assert [row for batch in found for row in batch] == rows
    assert [sum(len(row.input_ids) for row in batch) for batch in found] == [7, 9, 2]


def test_the_bench_measures_and_a_failed_row_stops_it(folders: list[Path], spec: ModelSpec) -> None:
    """Mixed and cliff give rates of every way, swaps only where adapters outnumber slots; an error is not a result."""
    shop = Shop(folders)
    inputs = texts(spec.source, 12, 8, 16)
    mixed = mixed_rates(shop, spec, inputs, "fp32", rounds=1)
    assert set(mixed.tokens_per_second) == {"one", "mixed", "one_merged"}
    rates, swaps = cliff_rates(shop, spec, inputs, slots=2, precision="fp32", rounds=1)
    assert rates.ratio("all", "fits") > 0
    assert swaps["fits"] == 2
    assert swaps["all"] > 5
    with pytest.raises(RunError, match="a row failed"):
        answer_all(Engine(spec, "fp32", fetch=shop.fetch), [Row(shop.digests[0], ())])
