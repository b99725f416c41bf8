"""Linear maps that are computed together give what each gave alone, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.kernels.low_rank import LowRank
from paretune.models.loading import load_encoder
from paretune.models.surgery import linear_names
from paretune.serve.linear import Plan, join, joined_update

BLOCK = "encoder.layer.0.attention"


def _update(place, rank: int, generator: torch.Generator) -> LowRank:
    inputs, outputs = place.whole.weight.shape[1], place.stop - place.start
    return LowRank(torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator))


@pytest.mark.parametrize("updated", [("query", "key", "value"), ("query", "value"), ("key",), ()])
def test_joined_maps_give_what_each_gave_alone(tiny_model: Path, updated: tuple[str, ...]) -> None:
    """Query, key and value of one input, updates of other ranks on any: each row gets its dense map's output."""
    encoder = load_encoder(f"path:{tiny_model}")
    names = {child: f"{BLOCK}.self.{child}" for child in ("query", "key", "value")}
    dense = {child: encoder.get_submodule(name) for child, name in names.items()}
    plan = Plan()
    places = join(encoder, plan, torch.float32)
    assert places.keys() == set(linear_names(load_encoder(f"path:{tiny_model}")))
    generator = torch.Generator().manual_seed(0)
    parts = [
        (places[names[child]], _update(places[names[child]], rank, generator)) for rank, child in enumerate(updated, 1)
    ]
    whole = places[names["query"]].whole
    plan.lengths = [3, 4]
    plan.updates = [{whole.name: joined_update(parts)} if parts else {}, {}]
    x_1ni = torch.randn(1, 7, 32, generator=generator)
    with torch.no_grad():
        for child, name in names.items():
            expected = dense[child](x_1ni)
            for place, update in parts:
                if place == places[name]:
                    expected[0, :3] += x_1ni[0, :3] @ update.a_ri.T @ update.b_or.T
            torch.testing.assert_close(encoder.get_submodule(name)(x_1ni), expected, rtol=1e-5, atol=1e-5)


def test_joined_maps_are_computed_once_for_one_input_and_again_for_another(tiny_model: Path) -> None:
    """The parts share one product per input tensor; after `clear` no tensor of the pass is kept."""
    encoder = load_encoder(f"path:{tiny_model}")
    plan = Plan()
    places = join(encoder, plan, torch.float32)
    whole = places[f"{BLOCK}.self.query"].whole
    calls: list[torch.Tensor] = []
    whole.register_forward_hook(lambda module, given, out: calls.append(given[0]))
    query, value = (encoder.get_submodule(f"{BLOCK}.self.{child}") for child in ("query", "value"))
    first, second = torch.ones(1, 2, 32), torch.zeros(1, 2, 32)
    with torch.no_grad():
        query(first), value(first)
        assert len(calls) == 1
        changed = value(second)
        assert len(calls) == 2
        assert not torch.equal(changed, value(first))
    plan.clear()
    assert plan._output is None and plan._of is None


def test_a_map_that_has_no_siblings_stays_alone(tiny_model: Path) -> None:
    """The output maps keep their own names; weights of joined maps are held once, in the wanted number format."""
    encoder = load_encoder(f"path:{tiny_model}")
    places = join(encoder, Plan(), torch.bfloat16)
    alone = places[f"{BLOCK}.output.dense"]
    assert (alone.whole.name, alone.start, alone.stop) == (f"{BLOCK}.output.dense", 0, 32)
    names = [name for name, _ in encoder.named_parameters() if BLOCK in name and name.endswith("weight")]
    assert f"{BLOCK}.self.joined.weight" in names
    assert not any(name.startswith(f"{BLOCK}.self.query") for name in names)
    assert alone.whole.weight.dtype == torch.bfloat16
