"""What the frozen lower blocks give for each text: computed once, kept in a file, shared by all runs of a study.

A text's hidden states do not depend on the texts beside it (in bf16 to the last bit, in fp32 within rounding; tested),
so that what is kept is what the blocks would give again in every step, epoch, seed and trial. Where the whole encoder
is frozen its features are kept, else the hidden states below the lowest block that learns, read row by row so that they
take no memory. Not here: what a run that finds them kept is charged for (`study/worker.py`). Source of the idea:
Matsutani et al. 2024 (https://arxiv.org/abs/2410.21073). Axes: b texts of a batch, t positions, h hidden, n texts.

    with inputs_of(model, encoded, "bf16", fast, Shelf(folder), emit) as inputs: inputs.features(rows)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from paretune.core.events import Event, Listener, PhaseEnded, PhaseStarted
from paretune.data.encoding import Encoded
from paretune.kernels.native.library import kernels_in_use
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision, autocast
from paretune.models.surgery import frozen_blocks, layers, plain_encoder, trainable
from paretune.repro.probe import numerics_fingerprint
from paretune.train.batches import length_batches
from paretune.train.fast_encoder import FastEncoder

BATCH = 32
DISK_SHARE = 0.25  # of what is free, at most, for one file
BYTES = 4  # of a kept number: fp32, as it is


def _nothing(cost: dict[str, object]) -> None:
    """For who need not know what was spent before."""


@dataclass(frozen=True)
class Shelf:
    """A folder of kept activations. `spent` gives what the phase "prefix" took here, kept beside them; `charged` is
    told what it took there, where they are found."""

    folder: Path
    spent: Callable[[], dict[str, object]] = dict
    charged: Callable[[dict[str, object]], None] = _nothing

    def find(self, key: str) -> Path | None:
        """The file that is kept under a key, if it is whole."""
        data, cost = self._files(key)
        try:
            spent = json.loads(cost.read_text())
        except (OSError, ValueError):
            return None
        if not data.exists():
            return None
        if spent:
            self.charged(spent)
        return data

    def room_for(self, size: int) -> bool:
        """Whether a file of so many bytes takes only a part of what is free."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return size <= DISK_SHARE * shutil.disk_usage(self.folder).free
        except OSError:
            return False

    def put(self, key: str, part: Path) -> Path:
        """Keep a finished file; the cost is written last and makes it whole."""
        data, cost = self._files(key)
        part.replace(data)
        aside = part.with_suffix(".cost")
        aside.write_text(json.dumps(self.spent()))
        aside.replace(cost)
        return data

    def _files(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{key}.bin", self.folder / f"{key}.json"


class Inputs(Protocol):
    """Where a model's features come from."""

    def features(self, rows: Sequence[int]) -> Tensor:
        """Features (b, h) in fp32 of some of the texts."""
        ...

    def positions(self, rows: Sequence[int]) -> int:
        """For how many positions something is computed then, padding included."""
        ...


class _Texts:
    """From the tokens."""

    def __init__(
        self, model: EncoderClassifier, fast: FastEncoder | None, encoded: Encoded, precision: Precision
    ) -> None:
        self._model, self._fast, self._encoded = model, fast, encoded
        self._precision: Precision = precision

    def features(self, rows: Sequence[int]) -> Tensor:
        with autocast(self._precision):
            return self._model.pooled(*self._encoded.padded(rows))

    def positions(self, rows: Sequence[int]) -> int:
        lengths = [len(self._encoded.ids[row]) for row in rows]
        return len(rows) * max(lengths) if self._fast is None else self._fast.positions(lengths)


class _Features:
    """Kept features of a frozen encoder."""

    def __init__(self, model: EncoderClassifier, features_nh: Tensor, encoded: Encoded) -> None:
        self._model, self._features_nh, self._encoded = model, features_nh, encoded

    def features(self, rows: Sequence[int]) -> Tensor:
        return self._model.scaled(self._features_nh[list(rows)])

    def positions(self, rows: Sequence[int]) -> int:
        return sum(len(self._encoded.ids[row]) for row in rows)


class _States:
    """From kept hidden states on, through the blocks that learn."""

    def __init__(self, model: EncoderClassifier, fast: FastEncoder, encoded: Encoded, first: int, file: int) -> None:
        self._model, self._fast, self._encoded, self._first, self._file = model, fast, encoded, first, file
        self._hidden = model.head.in_features
        self._starts_n = _starts(encoded)

    def features(self, rows: Sequence[int]) -> Tensor:
        lengths = [len(self._encoded.ids[row]) for row in rows]
        x_bth = torch.zeros(len(rows), max(lengths), self._hidden)
        mask_bt = torch.zeros(len(rows), max(lengths), dtype=torch.long)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            size = length * self._hidden * BYTES
            kept = bytearray(os.pread(self._file, size, int(self._starts_n[row]) * self._hidden * BYTES))
            x_bth[place, :length] = torch.frombuffer(kept, dtype=torch.float32).view(length, self._hidden)
            mask_bt[place, :length] = 1
        return self._model.pool(self._fast.rest(x_bth, mask_bt, self._first), mask_bt)

    def positions(self, rows: Sequence[int]) -> int:
        return self._fast.positions([len(self._encoded.ids[row]) for row in rows])


def _starts(encoded: Encoded) -> np.ndarray:
    """Tokens before each text."""
    return np.concatenate([[0], np.cumsum(encoded.lengths_n)[:-1]])


def _key(model: EncoderClassifier, encoded: Encoded, precision: Precision, first: int | None, plain_pass: bool) -> str:
    """Of all that the kept numbers depend on: what is computed with, on which texts, by which weights."""
    pooling = model.plain_pooling if first is None else ""  # kept features are not scaled
    kernels = "plain" if plain_pass else kernels_in_use()
    settings = (precision, numerics_fingerprint(), kernels, first, pooling, encoded.ids, encoded.pad_id)
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    plain = plain_encoder(model.encoder)
    words = cast(nn.Embedding, plain.get_input_embeddings()).weight
    seen = sorted({*chain.from_iterable(encoded.ids), encoded.pad_id})
    digest.update(words.detach()[seen].numpy().data)
    above = {id(one) for block in layers(plain)[first:] for one in block.parameters()} if first is not None else set()
    for name, parameter in plain.named_parameters():
        if parameter is not words and id(parameter) not in above:
            digest.update(name.encode())
            digest.update(parameter.detach().contiguous().numpy().data)
    return digest.hexdigest()


@contextmanager
def inputs_of(
    model: EncoderClassifier,
    encoded: Encoded,
    precision: Precision,
    fast: FastEncoder | None,
    shelf: Shelf | None,
    emit: Listener | None = None,
) -> Generator[Inputs]:
    """Features of texts for a model as it is frozen now; without a shelf, or where nothing is frozen, from the tokens.

    `fast` is the pass that `model.path` stands for. Making what is not kept yet is the phase "prefix".
    """
    plain = _Texts(model, fast, encoded, precision)
    whole = not trainable(model.encoder)
    # Features need no names; states between blocks are our own pass's to give.
    if shelf is None or not model.pools_states or (fast is None and not whole):
        yield plain
        return
    first = None if whole else frozen_blocks(plain_encoder(model.encoder))
    found = None if first == 0 else _kept(shelf, model, encoded, precision, fast, first, emit)
    if found is None:
        yield plain
    elif first is None or fast is None:
        kept_nh = np.fromfile(found, dtype=np.float32).reshape(len(encoded), model.head.in_features)
        yield _Features(model, torch.from_numpy(kept_nh), encoded)
    else:
        file = os.open(found, os.O_RDONLY)
        try:
            yield _States(model, fast, encoded, first, file)
        finally:
            os.close(file)


def _kept(
    shelf: Shelf,
    model: EncoderClassifier,
    encoded: Encoded,
    precision: Precision,
    fast: FastEncoder | None,
    first: int | None,
    emit: Listener | None,
) -> Path | None:
    """The file with what the frozen blocks give, made now where it is missing; None where there is no room for it."""
    key = _key(model, encoded, precision, first, plain_pass=fast is None)
    found = shelf.find(key)
    rows = len(encoded) if first is None else int(encoded.lengths_n.sum())
    if found is not None or not shelf.room_for(rows * model.head.in_features * BYTES):
        return found
    tell = emit if emit is not None else untold
    part = shelf.folder / f"{key}.{os.getpid()}.part"
    tell(PhaseStarted("prefix"))
    try:
        _make(part, model, encoded, precision, fast, first)
    except OSError:  # a disk that fills up is no reason to give up the run
        part.unlink(missing_ok=True)
        return None
    finally:
        tell(PhaseEnded("prefix"))
    return shelf.put(key, part)


def untold(event: Event) -> None:
    """For a pass whose cost nobody counts on its own."""


def _make(
    part: Path,
    model: EncoderClassifier,
    encoded: Encoded,
    precision: Precision,
    fast: FastEncoder | None,
    first: int | None,
) -> None:
    """Write what is kept, text by text; `first` None: the features of the whole encoder."""
    starts_n = np.arange(len(encoded)) if first is None else _starts(encoded)
    bytes_of_row = model.head.in_features * BYTES
    with open(part, "wb") as file, torch.inference_mode():
        for index_b in length_batches(encoded.lengths_n, BATCH):
            rows = index_b.tolist()
            if first is None or fast is None:
                input_ids_bt, mask_bt = encoded.padded(rows)
                with autocast(precision):
                    found_b = list(model.unscaled(model.hidden(input_ids_bt, mask_bt), mask_bt))
            else:
                x_bth = fast.states(*encoded.padded(rows), first)
                found_b = [x_bth[place, : len(encoded.ids[row])] for place, row in enumerate(rows)]
            for row, found in zip(rows, found_b, strict=True):
                os.pwrite(file.fileno(), found.contiguous().numpy().data, int(starts_n[row]) * bytes_of_row)
