"""Does an answer agree with a golden one: same label, probabilities within a tolerance, equal bits where wanted?

Not here: answering (`engine.py`), choosing and writing goldens (`export/export.py`).

    differs(golden, manifest.labels, goldens.tolerance, answer)  # None where it agrees
"""

from __future__ import annotations

from collections.abc import Sequence

from paretune.core.errors import BundleError, said
from paretune.records.bundle import Golden
from paretune.serve.bundle import hexed
from paretune.serve.resident import Answer, Resident


def differs(golden: Golden, labels: Sequence[str], tolerance: float, answer: Answer) -> str | None:
    """What is different, in words; None where the answers agree."""
    if golden.label not in labels or len(golden.probabilities) != len(labels):
        return "has another set of labels than the bundle"
    if len(answer.probabilities) != len(labels):
        return f"is answered with {len(answer.probabilities)} probabilities"
    given = labels[answer.probabilities.index(max(answer.probabilities))]
    if given != golden.label:
        return f"is answered {given!r} instead of {golden.label!r}"
    most = max(abs(one - other) for one, other in zip(answer.probabilities, golden.probabilities, strict=True))
    if not most <= tolerance:  # so written that NaN differs
        return f"is answered with a probability that is {most:.2g} off (tolerance {tolerance:.2g})"
    return None


def check_golden(resident: Resident, golden: Golden, outcome: Answer | Exception, served: Sequence[str] | None) -> None:
    """Compare; `served` are the bits that are wanted, None where a tolerance is enough.

    Raises:
        BundleError: the outcome is an exception, or another answer.
    """
    name, text = resident.manifest.name, golden.text[:30]
    if isinstance(outcome, Exception):
        raise BundleError(f"{name}: golden input {text!r} could not be answered: {outcome}") from outcome
    difference = differs(golden, resident.manifest.labels, resident.goldens.tolerance, outcome)
    if difference:
        raise BundleError(said(f"{name}: golden input {text!r} {difference}", "the bundle's own answer"))
    if served is not None and hexed(outcome.probabilities) != list(served):
        given = f"{name}: golden input {text!r} differs in its last bits under the same numerics"
        raise BundleError(said(given, "equal bits", do="export the bundle anew"))
