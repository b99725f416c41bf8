"""Families of models: what a model's config.json says of its kind, and which families were tried end to end.

Not here: any name inside a model (`surgery.py` finds parts by what they are), nor how it is loaded (`loading.py`). A
family that is not in the table takes the plain path like most of those that are; the table says what was tested
(`tests/integration/test_families.py` trains, reloads, exports and serves each).

    sees_only_before({"model_type": "qwen3"}), FAMILIES["modernbert"].path
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Path = Literal["kernels", "plain"]


@dataclass(frozen=True)
class Family:
    """`examples`: models that people use. `path`: by our own kernels in training and packed texts in serving, or by
    the forward pass of `transformers` in both."""

    examples: str
    path: Path
    decoder: bool = False

    @property
    def pooling(self) -> str:
        """The pooling where a study does not say."""
        return "last" if self.decoder else "mean"


FAMILIES: dict[str, Family] = {
    "bert": Family("BERT, MiniLM, E5, BGE, RuBERT", "kernels"),
    "roberta": Family("RoBERTa, ruRoBERTa", "kernels"),
    "xlm-roberta": Family("XLM-R, multilingual E5, BGE-M3", "kernels"),
    "distilbert": Family("DistilBERT", "kernels"),
    "llama": Family("Llama, SmolLM2, TinyLlama", "kernels", decoder=True),
    "albert": Family("ALBERT", "plain"),
    "camembert": Family("CamemBERT", "plain"),
    "deberta-v2": Family("DeBERTa-v3, mDeBERTa", "plain"),
    "electra": Family("ELECTRA", "plain"),
    "modernbert": Family("ModernBERT, RuModernBERT", "plain"),
    "mpnet": Family("MPNet, all-mpnet", "plain"),
    "t5": Family("T5's and FLAN-T5's encoder", "plain"),
    "gemma": Family("Gemma", "plain", decoder=True),
    "gemma3_text": Family("Gemma 3", "plain", decoder=True),
    "gpt2": Family("GPT-2, ruGPT-3", "plain", decoder=True),
    "mistral": Family("Mistral, Ministral", "plain", decoder=True),
    "qwen2": Family("Qwen 2, Qwen 2.5", "plain", decoder=True),
    "qwen3": Family("Qwen 3", "plain", decoder=True),
}
# In transformers' table of causal models, yet their plain model looks both ways.
_BOTH_WAYS = ("xlnet", "bert-generation")


def sees_only_before(config: Mapping[str, object]) -> bool:
    """Whether a token sees none that follow it, by the content of config.json: a decoder."""
    kind = str(config.get("model_type", ""))
    if config.get("is_encoder_decoder") is True:
        return False  # its encoder is taken
    if config.get("is_decoder") is True:
        return True
    if config.get("use_bidirectional_attention") is True or config.get("is_causal") is False or kind in _BOTH_WAYS:
        return False
    if kind in FAMILIES:
        return FAMILIES[kind].decoder
    from transformers.models.auto import modeling_auto as known  # seconds to import, and only where nothing else tells

    causal, masked = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return kind in causal and kind not in masked
