"""The outside authority for mixed batches: plain `peft` with `adapter_names=` against the engine, on the same rows.

Nothing of paretune's engine is used on peft's side: transformers' own model with its default attention, peft's own
layers. Like for like: both fp32, the same batches of texts of like length, so that padding costs peft next to nothing.
With defaults: the engine as it is served (bf16 where the processor has it), against peft in fp32, with the batch padded
to its longest text; once in the engine's batches ("peft_padded") and once request by request ("peft_requests"), as a
plain user would. The ways are measured in turn, A B A B …; a ratio is the median of the rounds. Answers of both
sides are compared first. The last line is one JSON object.

    python benchmarks/peer_mixed.py --model asset:minilm-l6 --adapters 16
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModel

from paretune.core.limits import usable_cores
from paretune.kernels.low_rank import LowRank
from paretune.models.sources import ModelSpec, model_folder
from paretune.serve.bench import BATCH_TOKENS, TEXTS_PER_REQUEST, Shop, batches, in_turn, rows_over
from paretune.serve.bundle import read_bundle, read_tensors
from paretune.serve.engine import Engine, Row
from paretune.serve.synthetic import texts, write_synthetic
from paretune.serve.tensor_thread import on_tensor_thread

AGREE = 1e-4


class Peer:
    """One peft model with all adapters, and a head for each (peft's own heads must all have as many classes)."""

    def __init__(self, source: str, folders: Sequence[Path], pad_id: int) -> None:
        self.pad_id = pad_id
        self.heads: dict[str, nn.Linear] = {}
        model: PeftModel | None = None
        for folder in folders:
            bundle = read_bundle(folder)
            delta, head_ch, bias_c = read_tensors(bundle)
            rank = next(one.a_ri.shape[0] for one in delta.values() if isinstance(one, LowRank))
            config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(delta))
            if model is None:
                encoder = AutoModel.from_pretrained(model_folder(source), add_pooling_layer=False, dtype=torch.float32)
                model = get_peft_model(encoder, config, adapter_name=bundle.digest)
            else:
                model.add_adapter(bundle.digest, config)
            for name, one in delta.items():
                layer = model.base_model.model.get_submodule(name)
                layer.lora_A[bundle.digest].weight.data = one.a_ri.clone()
                layer.lora_B[bundle.digest].weight.data = one.b_or.clone()
            head = nn.Linear(head_ch.shape[1], head_ch.shape[0])
            head.weight.data, head.bias.data = head_ch.clone(), bias_c.clone()
            self.heads[bundle.digest] = head
        assert model is not None
        self.model = model.eval()

    @torch.inference_mode()
    def answers(self, rows: Sequence[Row]) -> list[list[float]]:
        """Probabilities of each row; the batch is padded to its longest text."""
        width = max(len(row.input_ids) for row in rows)
        ids_bt = torch.tensor([[*row.input_ids, *[self.pad_id] * (width - len(row.input_ids))] for row in rows])
        mask_bt = torch.tensor([[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows])
        names = [row.digest for row in rows]
        hidden_bth = self.model(input_ids=ids_bt, attention_mask=mask_bt, adapter_names=names).last_hidden_state
        weight_bt1 = mask_bt.unsqueeze(-1).float()
        pooled_bh = (hidden_bth * weight_bt1).sum(1) / weight_bt1.sum(1)
        return [self.heads[name](one).softmax(-1).tolist() for name, one in zip(names, pooled_bh, strict=True)]

    def answer_all(self, parts: Sequence[Sequence[Row]]) -> int:
        """Answer all batches; how many tokens their texts have (padding is not counted)."""
        for rows in parts:
            on_tensor_thread(
                lambda rows=rows: self.answers(rows)
            )  # as the engine: two pools of threads slow each other
        return _tokens(parts)


def _tokens(parts: Sequence[Sequence[Row]]) -> int:
    return sum(len(row.input_ids) for rows in parts for row in rows)


def _ours(engine: Engine, parts: Sequence[Sequence[Row]]) -> Callable[[], int]:
    def run() -> int:
        for rows in parts:
            engine.run(rows)
        return _tokens(parts)

    return run


def _largest_difference(engine: Engine, peer: Peer, rows: Sequence[Row]) -> float:
    ours = [torch.tensor(one.probabilities) for one in engine.run(rows)]
    theirs = on_tensor_thread(lambda: peer.answers(rows))
    return max(float((one - torch.tensor(other)).abs().max()) for one, other in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="asset:minilm-l6")
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    torch.set_num_threads(usable_cores())
    spec = ModelSpec(source=chosen.model)
    with tempfile.TemporaryDirectory() as scratch:
        shop = Shop(folders := write_synthetic(Path(scratch), spec, chosen.adapters))
        like = Engine(spec, "fp32", chosen.adapters, fetch=shop.fetch)
        served = Engine(spec, "auto", chosen.adapters, fetch=shop.fetch)
        peer = on_tensor_thread(lambda: Peer(spec.source, folders, pad_id=0))
        rows = rows_over(like, shop.digests, texts(spec.source, chosen.texts, 64, 128))
        arrived = batches(rows, BATCH_TOKENS)
        alike = batches(sorted(rows, key=lambda row: len(row.input_ids)), BATCH_TOKENS)
        requests = [rows[start : start + TEXTS_PER_REQUEST] for start in range(0, len(rows), TEXTS_PER_REQUEST)]
        difference = max(_largest_difference(like, peer, part) for part in (alike[0], arrived[0]))
        assert difference < AGREE, f"the two sides disagree by {difference:.2g}"
        rates = in_turn(
            {
                "engine_fp32": _ours(like, alike),
                "peft_alike": lambda: peer.answer_all(alike),
                "engine_served": _ours(served, arrived),
                "peft_padded": lambda: peer.answer_all(arrived),
                "peft_requests": lambda: peer.answer_all(requests),
            },
            chosen.rounds,
        )
    for way, found in rates.tokens_per_second.items():
        print(f"{way:14} {rates.median(way):8.0f} tokens/s   rounds " + " ".join(f"{one:.0f}" for one in found))
    print(
        json.dumps(
            {
                "peer_ratio": rates.ratio("engine_fp32", "peft_alike"),
                "peer_ratio_defaults": rates.ratio("engine_served", "peft_requests"),
                "peer_ratio_padded": rates.ratio("engine_served", "peft_padded"),
                "precision": served.precision,
                "largest_difference": difference,
            }
        )
    )


if __name__ == "__main__":
    main()
