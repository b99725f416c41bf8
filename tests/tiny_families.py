"""Tiny random models of many families, each with a tokenizer of its own kind: what the families' table is tested on.

Not here: BERT's and Llama's toys of every other test (`paretune.models.tiny`).

    write_family("modernbert", Path("/tmp/tiny-modernbert"))
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from toy_study import toy_rows

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_ABOUT: dict[str, object] = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), PIECES, strict=True)),
}
MARKS_ABOUT: dict[str, object] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), MARKS, strict=True)),
    "cls_token": "<s>",
    "sep_token": "</s>",
}
DECODER_ABOUT: dict[str, object] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
# family → (config's class, model's class, kind of tokenizer, settings beyond the common ones)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GROUPED = {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": None}
FAMILY_MODELS: dict[str, tuple[str, str, str, dict[str, object]]] = {
    "bert": ("BertConfig", "BertModel", "pieces", SIZES),
    "roberta": ("RobertaConfig", "RobertaModel", "marks", {**SIZES, "max_position_embeddings": 66}),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaModel", "marks", {**SIZES, "max_position_embeddings": 66}),
    "camembert": ("CamembertConfig", "CamembertModel", "marks", {**SIZES, "max_position_embeddings": 66}),
    "mpnet": ("MPNetConfig", "MPNetModel", "marks", {**SIZES, "max_position_embeddings": 66}),
    "distilbert": (
        *("DistilBertConfig", "DistilBertModel", "pieces"),
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    ),
    "electra": ("ElectraConfig", "ElectraForPreTraining", "pieces", {**SIZES, "embedding_size": 16}),
    "albert": ("AlbertConfig", "AlbertModel", "pieces", {**SIZES, "embedding_size": 16}),
    "deberta-v2": (
        *("DebertaV2Config", "DebertaV2Model", "pieces"),
        {
            **SIZES,
            "position_biased_input": False,
            "relative_attention": True,
            "position_buckets": 16,
            "pos_att_type": ["p2c", "c2p"],
        },
    ),
    "modernbert": (
        *("ModernBertConfig", "ModernBertForMaskedLM", "pieces"),
        {**SIZES, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    ),
    "t5": (
        *("T5Config", "T5ForConditionalGeneration", "marks"),
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1},
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", "bytes", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", "bytes", {**SIZES, **GROUPED}),
    "mistral": ("MistralConfig", "MistralForCausalLM", "bytes", {**SIZES, **GROUPED}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", "bytes", {**SIZES, **GROUPED}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", "bytes", {**SIZES, **GROUPED, "head_dim": 8}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", "bytes", {**SIZES, **GROUPED, "head_dim": 8}),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM", "bytes", {**SIZES, **GROUPED, "head_dim": 8}),
}


def write_family(kind: str, folder: Path, *, tokenizer: dict[str, object] | None = None, seed: int = 0) -> Path:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json; `tokenizer` adds to the last."""
    config_name, model_name, form, settings = FAMILY_MODELS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    made, about = {"pieces": pieces, "marks": marks, "bytes": byte_pieces}[form]()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, **(tokenizer or {})}))
    of_marks = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2} if form == "marks" else {}
    whole = {"vocab_size": made.get_vocab_size(), "max_position_embeddings": 128, **of_marks, **settings}
    if kind in ("t5", "gpt2", "distilbert"):
        whole.pop("max_position_embeddings", None)
    config = getattr(transformers, config_name)(**whole)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, model_name)(config)
        for name, one in model.named_parameters():  # else a small model's features of all texts are nearly equal
            if one.ndim > 1 and "norm" not in name.lower():
                torch.nn.init.normal_(one, std=0.2)
        model.save_pretrained(folder)
    return folder


def _texts() -> list[str]:
    return [text for text, _ in toy_rows(120)]


def pieces(lower: bool = True) -> tuple[Tokenizer, dict[str, object]]:
    """WordPiece between [CLS] and [SEP]."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        _texts(), trainers.WordPieceTrainer(vocab_size=260, special_tokens=PIECES, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made, BERT_ABOUT


def byte_pieces() -> tuple[Tokenizer, dict[str, object]]:
    """Byte-level BPE that adds no special token and names none for padding."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        _texts(),
        trainers.BpeTrainer(vocab_size=400, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False),
    )
    return made, DECODER_ABOUT


def marks() -> tuple[Tokenizer, dict[str, object]]:
    """The same between <s> and </s>, with padding."""
    made, _ = byte_pieces()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made, MARKS_ABOUT
