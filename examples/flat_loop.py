"""The training of paretune in one file without abstractions: LoRA on a small encoder, Reuters R8.

It is the twin of `src/paretune/train/loop.py`: same data, same order, same start, same loss trajectory (a test compares
them). Read this one to understand that one.

    python examples/flat_loop.py --steps 20
"""

from __future__ import annotations

import argparse
import hashlib

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from paretune.assets.catalogue import find
from paretune.assets.fetch import read_member
from paretune.models.loading import load_encoder
from paretune.models.tokenizer import read_tokenizer


def stream_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """A named random stream of a run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()[:8], "little") >> 1


def reuters(rows: int) -> tuple[list[str], list[str]]:
    """The first rows of Reuters R8's training part: three header lines, then class and text."""
    lines = read_member(find("reuters-r8"), find("reuters-r8").members["train"]).decode().splitlines()[3:]
    pairs = [line.split("\t")[:2] for line in lines[:rows]]
    return [text for _, text in pairs], [label for label, _ in pairs]


def losses(
    model_source: str, texts: list[str], labels: list[str], *, seed: int = 0, steps: int = 20, epochs: int = 3,
    batch_size: int = 16, max_tokens: int = 128, learning_rate: float = 1e-3, head_learning_rate: float = 1e-2,
    rank: int = 8, bf16: bool = False,
) -> list[float]:  # fmt: skip
    """Loss of each of the first `steps` optimizer steps of a training of `epochs` epochs."""
    # Tokens and targets.
    tokenizer = read_tokenizer(model_source)
    ids = [one.input_ids for one in tokenizer.encode(texts, max_tokens)]
    classes = sorted(set(labels))
    targets = torch.tensor([classes.index(label) for label in labels])

    # Frozen encoder with LoRA on every linear layer of its blocks, and a new head.
    encoder = load_encoder(model_source)
    linears = [name for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)]
    names = [name for name in linears if ".layer." in name]
    encoder.requires_grad_(False)
    init = torch.Generator().manual_seed(stream_seed(seed, "init"))
    torch.manual_seed(int(torch.randint(2**62, (1,), generator=init)))
    encoder = get_peft_model(encoder, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names))
    head = torch.nn.Linear(encoder.config.hidden_size, len(classes))
    torch.nn.init.normal_(head.weight, std=0.02, generator=init)
    torch.nn.init.zeros_(head.bias)

    # Batches: shuffle, sort by length (with 10 % noise) in windows of 16 batches, shuffle the batches.
    lengths = np.array([len(row) for row in ids])
    batches: list[np.ndarray] = []
    for epoch in range(epochs):
        random = np.random.default_rng(stream_seed(seed, "order", epoch))
        order = random.permutation(len(ids))
        whole, rest = [], []
        for start in range(0, len(order), batch_size * 16):
            window = order[start : start + batch_size * 16]
            noise = random.uniform(0.9, 1.1, len(window))
            window = window[np.argsort(lengths[window] * noise, kind="stable")]
            for first in range(0, len(window), batch_size):
                batch = window[first : first + batch_size]
                (whole if len(batch) == batch_size else rest).append(batch)
        batches += [whole[place] for place in random.permutation(len(whole))] + rest

    # AdamW: matrices decay, vectors do not; the head has a rate of its own; warm-up over a tenth, then linear to
    # zero; gradients clipped at 1.
    adapter = [one for one in encoder.parameters() if one.requires_grad]
    groups = [
        {"params": adapter, "peak": learning_rate, "weight_decay": 0.01},
        {"params": [head.weight], "peak": head_learning_rate, "weight_decay": 0.01},
        {"params": [head.bias], "peak": head_learning_rate, "weight_decay": 0.0},
    ]
    parameters = [*adapter, *head.parameters()]
    optimizer = torch.optim.AdamW(groups, fused=True)
    warmup = max(1, round(len(batches) * 0.1))

    encoder.train()
    found: list[float] = []
    for step, batch in enumerate(batches[:steps], start=1):
        factor = step / warmup if step <= warmup else (len(batches) - step + 1) / (len(batches) - warmup + 1)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        width = max(lengths[batch])
        input_ids = torch.full((len(batch), width), tokenizer.pad_id)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for place, row in enumerate(batch):
            input_ids[place, : len(ids[row])] = torch.tensor(ids[row])
            mask[place, : len(ids[row])] = 1
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            hidden = encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        weight = mask.float().unsqueeze(-1)
        features = (hidden.float() * weight).sum(1) / weight.sum(1)
        loss = torch.nn.functional.cross_entropy(head(features), targets[batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    texts, labels = reuters(320)
    for step, loss in enumerate(losses("asset:minilm-l6", texts, labels, steps=parser.parse_args().steps), start=1):
        print(f"step {step:3d}  loss {loss:.4f}")
