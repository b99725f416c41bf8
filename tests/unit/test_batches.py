"""Tokens and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretune.data.encoding import Encoded, encode
from paretune.models.tokenizer import read_tokenizer
from paretune.train.batches import epoch_batches, length_batches

LENGTHS = st.lists(st.integers(2, 128), min_size=1, max_size=600).map(np.array)


def test_texts_are_cut_and_keep_their_special_tokens(tiny_model: Path) -> None:
    """At most `max_tokens` with the special tokens in; a prefix stands before each text; nothing is padded."""
    tokenizer = read_tokenizer(f"path:{tiny_model}")
    encoded = encode(tokenizer, ["crude", "crude " * 50], max_tokens=10)
    assert encoded.lengths_n.tolist() == [3, 10]
    first, last = tokenizer.encode([""])[0].input_ids  # [CLS] and [SEP]
    assert all(row[0] == first and row[-1] == last for row in encoded.ids)
    assert encode(tokenizer, ["crude"], 10, prefix="credit ").ids == encode(tokenizer, ["credit crude"], 10).ids
    assert encoded.pad_id == tokenizer.pad_id


def test_rows_are_padded_to_the_longest_of_them() -> None:
    """By hand."""
    encoded = Encoded(((1, 2, 3), (4, 5), (6,)), pad_id=9)
    input_ids_bt, mask_bt = encoded.padded([2, 1])
    assert torch.equal(input_ids_bt, torch.tensor([[6, 9], [4, 5]]))
    assert torch.equal(mask_bt, torch.tensor([[1, 0], [1, 1]]))
    assert len(encoded) == 3


@given(LENGTHS, st.integers(1, 33), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_is_a_permutation(lengths_n: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
    """Every row once, whole batches but the last, and the same again for the same seed and epoch."""
    batches = epoch_batches(lengths_n, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths_n)))
    assert all(len(batch) == batch_size for batch in batches[:-1]) and 0 < len(batches[-1]) <= batch_size
    again = epoch_batches(lengths_n, batch_size, seed, epoch)
    assert [one.tolist() for one in batches] == [one.tolist() for one in again]


@given(LENGTHS, st.integers(1, 33))
def test_evaluation_goes_from_the_longest_down(lengths_n: np.ndarray, batch_size: int) -> None:
    """Every row once, and no batch has a longer row than the one before."""
    batches = length_batches(lengths_n, batch_size)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths_n)))
    assert (np.diff(lengths_n[order]) <= 0).all()


@pytest.mark.parametrize("epoch", [0, 1])
def test_batches_of_an_epoch_hold_like_lengths_in_no_order_of_length(epoch: int) -> None:
    """Within a batch lengths are near; over the epoch short and long come mixed."""
    lengths_n = np.random.default_rng(1).integers(4, 129, 1024)
    batches = epoch_batches(lengths_n, 16, seed=0, epoch=epoch)
    spread = np.mean([np.ptp(lengths_n[batch]) for batch in batches])
    assert spread < 24 < np.ptp(lengths_n)  # 10 % noise on either side of up to 128 tokens
    means = np.array([lengths_n[batch].mean() for batch in batches])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.4


def test_a_small_data_set_gets_other_batches_in_every_epoch() -> None:
    """One window of rows is not cut into the same batches again and again."""
    lengths_n = np.random.default_rng(2).integers(20, 129, 160)
    first, second = (
        {frozenset(batch.tolist()) for batch in epoch_batches(lengths_n, 16, 0, epoch)} for epoch in (0, 1)
    )
    assert not first & second
