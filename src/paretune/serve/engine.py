"""Classifies texts by many adapters over one base model; one pass mixes adapters, ranks, targets and label sets.

Texts of a pass lie one after another, sorted by adapter and then by length, so there is no padding at all. An adapter
that replaces parameters of the base ("model") gets passes of its own. Not here: HTTP, queues and fairness
(`scheduler.py`), names and aliases (`registry.py`), text generation (a later sibling with its own passes over the same
slots). A text that raises or gives NaN fails alone.

    engine = Engine(ModelSpec(source="asset:minilm-l6"), fetch=store.fetch); engine.run([Row("9f86…", (101, 102))])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import cycle, groupby, islice
from typing import Literal

import torch

from paretune.core.config import validated
from paretune.core.errors import BundleError, DataError, said
from paretune.kernels.low_rank import runs
from paretune.models.precision import Precision, chosen_precision
from paretune.models.sources import ModelSpec
from paretune.models.tokenizer import Tokens, read_tokenizer
from paretune.records.bundle import Manifest
from paretune.repro.probe import numerics_fingerprint
from paretune.serve.base_model import Replaced, load_base
from paretune.serve.bundle import Bundle, read_space, read_tensors
from paretune.serve.goldens import check_golden
from paretune.serve.merging import Merging
from paretune.serve.pool import NoFreeSlot, Pool
from paretune.serve.reading import Read, encoded
from paretune.serve.resident import Answer, Company, Group, Resident, Tensors, fitted
from paretune.serve.tensor_thread import on_tensor_thread, with_threads

PASS_TOKENS = 8192  # bounds the memory of one pass, whatever the caller brings
MERGE_AFTER_BATCHES = 8
MOST_THREADS = 1024
_LOG = logging.getLogger(__name__)
Outcome = Answer | Exception


@dataclass(frozen=True)
class Row:
    """One text, tokenized by `Engine.encode`, for one adapter."""

    digest: str
    input_ids: tuple[int, ...]


Item = tuple[Resident, tuple[int, ...]]


class Engine:
    """One base model and its slots. `run` belongs to one thread; all else may be called from any."""

    def __init__(
        self,
        source_model: ModelSpec,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
        slots: int = 16,
        *,
        fetch: Callable[[str], Bundle],
        read: Callable[[Bundle], Tensors] = read_tensors,
        merge_after: int = MERGE_AFTER_BATCHES,
    ) -> None:
        self.precision: Precision = chosen_precision(precision, in_cpp=False)
        self.max_slots = slots
        self._base = on_tensor_thread(lambda: load_base(source_model, self.precision))
        self._tokenizing = read_tokenizer(source_model.source)
        self._fetch, self._read = fetch, read
        self._pool: Pool[Resident] = Pool(slots, self._loaded)
        self._manifests: dict[str, Manifest] = {}
        self._fingerprints: dict[int, str] = {}
        self._merging = Merging(merge_after)

    @property
    def base_digest(self) -> str:
        """Digest of the base model's files."""
        return self._base.digest

    @property
    def max_tokens(self) -> int:
        """The longest text that the base model has positions for."""
        return self._base.max_tokens

    @property
    def hidden_size(self) -> int:
        """Features that a head gets."""
        return self._base.hidden_size

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear map that an adapter may update, by name."""
        return self._base.linear_shapes

    @property
    def swaps(self) -> int:
        """How often a bundle was read into a slot."""
        return self._pool.swaps

    @property
    def merged_digest(self) -> str | None:
        """The adapter whose merged weights are in use, if any."""
        return self._merging.digest

    def resident(self) -> list[str]:
        """Digests in slots, least recently used first."""
        return self._pool.resident()

    def pin(self, digest: str) -> None:
        """Load and keep in its slot; at most slots − 1 may be pinned."""
        self._pool.pin(digest)

    def unpin(self, digest: str) -> None:
        """Let it go when room is wanted."""
        self._pool.unpin(digest)

    def evict(self, digest: str) -> None:
        """Take out of its slot now, or when the pass that uses it ends; nothing of it stays in memory."""
        self._pool.evict(digest)
        self._manifests.pop(digest, None)
        on_tensor_thread(lambda: self._merging.forget(digest))

    def encode(self, digest: str, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of `read`."""
        return [one.tokens for one in self.read(digest, texts)]

    def read(self, digest: str, texts: Sequence[str]) -> list[Read]:
        """Tokenize as the bundle was trained: its prefix, its longest length.

        Raises:
            DataError: a text is not valid Unicode.
            whatever `fetch` raises for an unknown digest.
        """
        return self._read_by(self._manifests.get(digest) or self._fetched(digest).manifest, texts)

    def tokens(self, digest: str, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids alone of `encode`."""
        return [one.input_ids for one in self.encode(digest, texts)]

    def check(self, bundle: Bundle, certified: bool = True) -> None:
        """All that must hold before a bundle may serve; its goldens are answered again, each text alone.

        Without `certified` (while the certificate is being earned) the certificate and bit-equality are left out.

        Raises:
            BundleError: says what does not hold.
        """
        name = bundle.manifest.name
        if certified and not bundle.certificate.passed:
            failed = next((one.name for one in bundle.certificate.checks if not one.passed), "some were never made")
            raise BundleError(said(f"{name}: a certificate without all its checks ({failed})", "each of them passed"))
        resident = self._resident(bundle)
        if not bundle.goldens.rows:
            raise BundleError(said(f"{name} has no golden inputs", "at least one"))
        exact = certified and bundle.goldens.fingerprint == self.fingerprint()
        for golden in bundle.goldens.rows:
            ids = self._encoded(bundle.manifest, [golden.text])[0].input_ids
            fault = self._fault(Row(bundle.digest, ids))
            outcome = fault or self._isolated([(resident, ids)], {})[0]
            check_golden(resident, golden, outcome, golden.served.get(self.precision) if exact else None)
        self._manifests[bundle.digest] = bundle.manifest

    def fingerprint(self, threads: int | None = None) -> str:
        """The numerics fingerprint of the thread that answers; it decides whether goldens must be equal bit for bit.

        `threads`: of a pass that had so many; the caller's number where it is left out.
        """
        wanted = threads or torch.get_num_threads()
        if wanted not in self._fingerprints:
            self._fingerprints[wanted] = on_tensor_thread(lambda: with_threads(wanted, numerics_fingerprint))
        return self._fingerprints[wanted]

    def again(self, row: Row, company: Company, place: int) -> Outcome:
        """The answer of a row in a pass like that of `company`, where it had this place; bits are equal then.

        Other texts of that pass stand in by their lengths alone: what they say touches no other text's numbers.

        Raises:
            DataError: no pass of this engine looks so.
            whatever `fetch` raises for an unknown digest.
        """
        fault = self._fault(row) or self._no_such_pass(row, company, place)
        if fault is not None:
            raise fault
        with self._pool.held(row.digest) as resident:
            others = [(one.adapter, one.tokens) for one in company.groups for _ in range(one.texts)]
            own = others[place][0]
            stand_in = {one: replace(resident, digest=f"{one:064}") for one, _ in others if one != own}
            items: list[Item] = [
                (stand_in.get(adapter, resident), tuple(islice(cycle(row.input_ids), tokens)))
                for adapter, tokens in others
            ]

            def passed() -> Outcome:
                merged = self._base.merged(resident.updates) if company.merged else {}
                return self._pass(items, merged)[place]

            return on_tensor_thread(lambda: with_threads(company.threads, passed))

    def _no_such_pass(self, row: Row, company: Company, place: int) -> DataError | None:
        tokens = sum(one.tokens * one.texts for one in company.groups)
        lengths = [one.tokens for one in company.groups for _ in range(min(one.texts, PASS_TOKENS))]
        possible = all(1 <= one <= self._base.max_tokens for one in lengths)
        if not possible or tokens > max(PASS_TOKENS, len(row.input_ids)) or not 1 <= company.threads <= MOST_THREADS:
            return DataError(said(f"a pass of {len(lengths)} texts and {tokens} tokens", "one of this engine's"))
        if not 0 <= place < len(lengths) or lengths[place] != len(row.input_ids):
            return DataError(said(f"place {place} of the pass", f"a text of {len(row.input_ids)} tokens there"))
        return None

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        """One answer or exception for each row, in their order."""
        found: list[Outcome | None] = [self._fault(row) for row in rows]
        waiting: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            if found[place] is None:
                waiting.setdefault(row.digest, []).append(place)
        if waiting:
            on_tensor_thread(lambda: self._merging.saw(waiting.keys()))
        while waiting:
            with ExitStack() as stack:
                held = self._held(stack, waiting, found)
                merged = self._merged(held) if len(waiting) == 1 else {}
                for places in _passes(held, waiting, rows):
                    items = [(held[rows[place].digest], rows[place].input_ids) for place in places]
                    for place, outcome in zip(places, self._isolated(items, merged), strict=True):
                        found[place] = outcome
                for digest in held:
                    del waiting[digest]
        assert None not in found, "every row was waiting for one of the adapters, or had a fault"
        return [one for one in found if one is not None]

    def _held(
        self, stack: ExitStack, waiting: dict[str, list[int]], found: list[Outcome | None]
    ) -> dict[str, Resident]:
        """As many of the waiting adapters as there are slots; one that cannot be had fails its rows."""
        held: dict[str, Resident] = {}
        for digest in list(waiting):
            try:
                held[digest] = stack.enter_context(self._pool.held(digest))
            except Exception as error:
                if isinstance(error, NoFreeSlot) and held:
                    break  # these first; the others when their slots are free again
                for place in waiting.pop(digest):
                    found[place] = error
        return held

    def _isolated(self, items: Sequence[Item], merged: Replaced) -> list[Outcome]:
        """A pass; where it raises, each text once more alone, so that only the one at fault fails."""
        try:
            return on_tensor_thread(lambda: self._pass(items, merged))
        except Exception as error:
            if len(items) == 1:
                return [error]
            _LOG.warning("a pass of %d texts failed (%s); each is tried alone", len(items), type(error).__name__)
            return [outcome for item in items for outcome in self._isolated([item], merged)]

    def _pass(self, items: Sequence[Item], merged: Replaced) -> list[Outcome]:
        """One pass over texts that are sorted by adapter; `merged` weights hold the one adapter's updates already.

        Belongs to the tensor thread.
        """
        texts = [ids for _, ids in items]
        lengths = [len(ids) for ids in texts]
        digests = [resident.digest for resident, _ in items]
        residents = {resident.digest: resident for resident, _ in items}
        segments = [(length, residents[digest].updates) for digest, length in runs(digests, lengths)]
        batch = tuple(sorted(residents))
        company = _company(digests, lengths, batch, bool(merged))
        found: list[Outcome] = []
        with torch.inference_mode():
            hidden_nh = self._base.hidden(texts, [] if merged else segments, merged or items[0][0].replaced)
            parts = hidden_nh.split(lengths)
            features_rh = torch.stack([one.pooled(part) for (one, _), part in zip(items, parts, strict=True)])
            counted = runs(digests, [1] * len(items))
            groups = features_rh.split([count for _, count in counted])
            for (digest, _), group_rh in zip(counted, groups, strict=True):
                found += residents[digest].answers(group_rh, batch, company, len(found))
        return found

    def _merged(self, held: dict[str, Resident]) -> Replaced:
        """Merged weights where one adapter has had all recent traffic; made when they are due, if its goldens hold."""
        if not held:
            return {}
        digest, resident = next(iter(held.items()))
        if self._merging.due == digest:
            self._merge(digest, resident)
        return self._merging.weights(digest)

    def _merge(self, digest: str, resident: Resident) -> None:
        if not resident.shared or not resident.updates:
            self._merging.refuse(digest)  # nothing to merge
            return
        try:
            weights = on_tensor_thread(lambda: self._base.merged(resident.updates))
            rows = resident.goldens.rows
            encoded = self._encoded(resident.manifest, [one.text for one in rows])
            items = [(resident, one.input_ids) for one in encoded]
            outcomes = on_tensor_thread(lambda: self._pass(items, weights))
            for golden, outcome in zip(rows, outcomes, strict=True):
                check_golden(resident, golden, outcome, None)
        except Exception as error:
            self._merging.refuse(digest)
            _LOG.warning("%s is not merged: %s", resident.manifest.name, error)
        else:
            self._merging.use(digest, weights)

    def _fault(self, row: Row) -> DataError | None:
        """Why a row cannot be run at all."""
        ids = row.input_ids
        if not 1 <= len(ids) <= self._base.max_tokens:
            return DataError(said(f"a text of {len(ids)} tokens", f"1 to {self._base.max_tokens}"))
        if min(ids) < 0 or max(ids) >= self._base.vocabulary:
            return DataError(said("a token id outside the vocabulary", f"0 to {self._base.vocabulary - 1}"))
        return None

    def _loaded(self, digest: str) -> Resident:
        return self._resident(self._fetched(digest))

    def _fetched(self, digest: str) -> Bundle:
        bundle = self._fetch(digest)
        if bundle.digest != digest:
            raise BundleError(said(f"the store gave {bundle.digest[:12]}…", f"{digest[:12]}…, which was asked for"))
        self._manifests[digest] = bundle.manifest
        return bundle

    def _resident(self, bundle: Bundle) -> Resident:
        return on_tensor_thread(
            lambda: fitted(
                self._base, bundle.digest, bundle.manifest, bundle.goldens, self._read(bundle), read_space(bundle)
            )
        )

    def _encoded(self, manifest: Manifest, texts: Sequence[str]) -> list[Tokens]:
        return [one.tokens for one in self._read_by(manifest, texts)]

    def _read_by(self, manifest: Manifest, texts: Sequence[str]) -> list[Read]:
        prefix = validated(manifest.model, ModelSpec, f"{manifest.name}: model").text_prefix
        return encoded(self._tokenizing, texts, min(manifest.max_tokens, self._base.max_tokens), prefix)


def _company(digests: Sequence[str], lengths: Sequence[int], batch: Sequence[str], merged: bool) -> Company:
    """What a pass looks like, for receipts."""
    place_of = {digest: place for place, digest in enumerate(batch)}
    neighbours = groupby(zip(digests, lengths, strict=True))
    groups = [Group(place_of[digest], length, len(list(same))) for (digest, length), same in neighbours]
    return Company(tuple(groups), merged, torch.get_num_threads())


def _passes(held: dict[str, Resident], waiting: dict[str, list[int]], rows: Sequence[Row]) -> Iterator[list[int]]:
    """Places of rows that lie in one pass: sorted by adapter, then by length, and not too many tokens."""
    together = [digest for digest, resident in held.items() if resident.shared]
    alone = [digest for digest, resident in held.items() if not resident.shared]
    for digests in [together, *([digest] for digest in alone)]:
        places = [
            place
            for digest in digests
            for place in sorted(waiting[digest], key=lambda place: len(rows[place].input_ids))
        ]
        tokens = 0
        cut: list[int] = []
        for place in places:
            length = len(rows[place].input_ids)
            if cut and tokens + length > PASS_TOKENS:
                yield cut
                cut, tokens = [], 0
            cut.append(place)
            tokens += length
        if cut:
            yield cut
