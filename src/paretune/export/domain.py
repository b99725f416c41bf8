"""Fits what a bundle needs to leave texts unlike its training data to a person, and measures what that does.

The space is fitted on features of training texts, the threshold is a quantile of validation texts' distances, and two
shares are measured: of test texts that are flagged (they should not be), and of invented strings (they should). Not
here: the distance itself (`serve/domain.py`).
Axes: n texts, h hidden.

    space, domain = fitted_domain(features_of, data)
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Sequence

from torch import Tensor

from paretune.data.prepare import Prepared
from paretune.export.goldens import evenly
from paretune.records.bundle import Domain
from paretune.serve.domain import Space, fit_space

FLAGGED_SHARE = 0.05  # of texts like those of the validation data
MOST_ROWS = 2000  # of each split: features of more texts change the fit little
INVENTED = 120
GREETINGS = ("test", "hello", "lol", "ok", "foo bar", "blah blah", "привет", "ну да")

Features = Callable[[Sequence[str]], Tensor]  # texts → (n, h)


def fitted_domain(features_of: Features, data: Prepared) -> tuple[Space, Domain]:
    """The space of a bundle's training texts, its threshold, and what both do on texts that they were not fitted on."""
    train, validation, test = (_some(data, split) for split in ("train", "validation", "test"))
    space = fit_space(features_of([text for text, _ in train]), [label for _, label in train])

    def distances(texts: Sequence[str]) -> list[float]:
        return [float(one) for one in space.distances(features_of(texts))]

    known = distances([text for text, _ in validation])
    threshold = quantile_of(known, FLAGGED_SHARE)

    def share(values: Sequence[float]) -> float:
        return sum(one > threshold for one in values) / len(values)

    return space, Domain(
        threshold=threshold,
        share=FLAGGED_SHARE,
        validation_rows=len(known),
        validation_flagged=share(known),
        test_rows=len(test),
        test_flagged=share(distances([text for text, _ in test])),
        invented_rows=INVENTED,
        invented_flagged=share(distances(invented_texts(INVENTED))),
    )


def _some(data: Prepared, split: str) -> list[tuple[str, str]]:
    rows = data.splits[split]
    return [(rows.texts[place], rows.labels[place]) for place in evenly(len(rows), MOST_ROWS)]


def quantile_of(values: Sequence[float], share: float) -> float:
    """The value that a further one of the same kind is above with a chance of at most `share`, if there are enough.

    Of n exchangeable values the ⌈(1 − share)(n + 1)⌉-th smallest has this property (split conformal prediction, Vovk et
    al. 2005, https://arxiv.org/abs/2107.07511); of fewer than 1 / share − 1 it is their largest, and the chance larger.
    """
    rank = math.ceil((1 - share) * (len(values) + 1))
    return sorted(values)[min(rank, len(values)) - 1]


def invented_texts(count: int, seed: int = 0) -> list[str]:
    """Strings that no data set is about: keys hit at random, made-up words, signs, numbers, greetings."""
    draw = random.Random(seed)

    def word(letters: str, least: int, most: int) -> str:
        return "".join(draw.choices(letters, k=draw.randint(least, most)))

    def words(letters: str, most: int) -> str:
        return " ".join(word(letters, 2, 9) for _ in range(draw.randint(1, most)))

    kinds = (
        lambda: word("asdfghjkl", 3, 9),
        lambda: words(string.ascii_lowercase, 12),
        lambda: words("фывапролджэйцукенгшщз", 8),
        lambda: word("!?.,#@&*()_+-=", 2, 12),
        lambda: words(string.digits, 8),
        lambda: draw.choice(GREETINGS) + word("! 1", 0, 3),
    )
    return [kinds[place % len(kinds)]() for place in range(count)]
