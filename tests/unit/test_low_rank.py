"""Low-rank updates of rows that belong to several adapters."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paretune.kernels.low_rank import LowRank, add_segments, merged, runs

WIDTHS = st.integers(1, 9)
RANKS = st.lists(st.integers(0, 5), min_size=8, max_size=8)
LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=8)


def _update(generator: torch.Generator, rank: int, inputs: int, outputs: int) -> LowRank:
    return LowRank(
        torch.randn(rank, inputs, generator=generator, dtype=torch.float64),
        torch.randn(outputs, rank, generator=generator, dtype=torch.float64),
    )


@settings(deadline=None)
@given(
    lengths=LENGTHS,
    inputs=WIDTHS,
    outputs=WIDTHS,
    seed=st.integers(0, 999),
    ranks=RANKS,
)
def test_sorted_segments_equal_each_row_by_its_own_dense_weight(
    lengths: list[int], inputs: int, outputs: int, seed: int, ranks: list[int]
) -> None:
    """Any lengths and ranks, an adapter without an update among them: each row gets x·(W + BA)ᵀ of its own adapter."""
    generator = torch.Generator().manual_seed(seed)
    x_ni = torch.randn(sum(lengths), inputs, generator=generator, dtype=torch.float64)
    weight_oi = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    updates = [_update(generator, rank, inputs, outputs) if rank else None for rank in ranks[: len(lengths)]]
    expected: list[torch.Tensor] = []
    for part_ni, update in zip(x_ni.split(lengths), updates, strict=True):
        dense = weight_oi if update is None else weight_oi + update.b_or @ update.a_ri
        expected.append(part_ni @ dense.T)
    found = add_segments(x_ni @ weight_oi.T, x_ni, lengths, updates)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-9, atol=1e-9)


@given(keys=st.lists(st.sampled_from("abc"), max_size=12), data=st.data())
def test_runs_of_sorted_texts_share_out_all_rows(keys: list[str], data: st.DataObject) -> None:
    """Each key comes once, in order, with the sum of its texts' lengths."""
    keys = sorted(keys)
    lengths = data.draw(st.lists(st.integers(0, 9), min_size=len(keys), max_size=len(keys)))
    found = runs(keys, lengths)
    assert [key for key, _ in found] == sorted(set(keys))
    for key, rows in found:
        assert rows == sum(length for other, length in zip(keys, lengths, strict=True) if other == key)


def test_merged_weight_gives_what_the_segment_gives_and_leaves_the_base_alone() -> None:
    """x·(W ⊕ ΔW)ᵀ = x·Wᵀ + the segment's update, in fp32; W is not written to, and bf16 stays bf16."""
    generator = torch.Generator().manual_seed(0)
    x_ni, weight_oi = torch.randn(5, 8, generator=generator), torch.randn(6, 8, generator=generator)
    update = LowRank(torch.randn(3, 8, generator=generator), torch.randn(6, 3, generator=generator))
    before = weight_oi.clone()
    added = add_segments(x_ni @ weight_oi.T, x_ni, [5], [update])
    torch.testing.assert_close(x_ni @ merged(weight_oi, update).T, added, rtol=1e-5, atol=1e-5)
    assert torch.equal(weight_oi, before)
    assert merged(weight_oi.bfloat16(), update).dtype == torch.bfloat16


def test_an_update_in_another_format_keeps_no_tie_to_a_larger_storage() -> None:
    """A view of a whole file's buffer becomes a tensor of its own, so that the file's memory can go."""
    whole = torch.arange(1000.0)
    copy = LowRank(whole[:6].view(2, 3), whole[10:18].view(4, 2)).to(torch.float32)
    assert copy.a_ri.untyped_storage().nbytes() == 24
    assert copy.b_or.untyped_storage().nbytes() == 32
    assert torch.equal(copy.b_or, whole[10:18].view(4, 2))
