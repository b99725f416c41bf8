"""Texts unlike the training texts: the distance against a formula written out, the threshold's share, the file's form.

PYTHONPATH=src python -m pytest tests/unit/test_domain.py
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from paretune.core.errors import BundleError
from paretune.core.text import is_blank
from paretune.export.domain import fitted_domain, invented_texts, quantile_of
from paretune.serve.domain import DIRECTIONS, SHRINKAGE, fit_space, space_of

HIDDEN, ROWS = 160, 240


def features(rows: int, seed: int, off: float = 0.0) -> torch.Tensor:
    """Three clouds of unequal spread in more directions than are kept."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(1.0, 0.05, HIDDEN)
    centres = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1)) * 2
    return centres[torch.arange(rows) % 3] + torch.randn(rows, HIDDEN, generator=generator) * scales + off


def classes(rows: int) -> list[str]:
    return [f"class {place % 3}" for place in range(rows)]


def test_the_distance_is_mahalanobis_to_the_nearest_class() -> None:
    """Against the whole matrix inverted by numpy: the largest directions as they are, one variance for the others."""
    train, new = features(ROWS, 2), features(40, 3, off=0.3)
    space = fit_space(train, classes(ROWS))
    unit_nh = train.double().numpy() / np.linalg.norm(train.double().numpy(), axis=1, keepdims=True)
    means_ch = np.stack([unit_nh[place::3].mean(0) for place in range(3)])
    around_nh = unit_nh - means_ch[np.arange(ROWS) % 3]
    variances_h, directions_hh = np.linalg.eigh(around_nh.T @ around_nh / ROWS)
    order = np.argsort(-variances_h)
    shrunk_h = (1 - SHRINKAGE) * variances_h[order] + SHRINKAGE * variances_h.mean()
    shrunk_h[DIRECTIONS:] = shrunk_h[DIRECTIONS:].mean()
    inverse_hh = directions_hh[:, order] @ np.diag(1 / shrunk_h) @ directions_hh[:, order].T
    new_rh = new.double().numpy() / np.linalg.norm(new.double().numpy(), axis=1, keepdims=True)
    expected = [min((row - mean) @ inverse_hh @ (row - mean) for mean in means_ch) for row in new_rh]
    np.testing.assert_allclose(space.distances(new).numpy(), expected, rtol=1e-4)


def test_texts_of_a_batch_do_not_touch_each_other() -> None:
    """A distance is the same alone and among others, whatever the scale of the features; fewer rows than features and
    a class of one text are no trouble."""
    space = fit_space(features(31, 4), [*classes(30), "alone"])
    rows = features(9, 5)
    together = space.distances(rows)
    for place in range(9):
        assert space.distances(rows[place : place + 1]).item() == pytest.approx(float(together[place]), rel=1e-9)
    torch.testing.assert_close(space.distances(rows * 7), together, rtol=1e-6, atol=0)
    assert bool(torch.isnan(space.distances(torch.full((1, HIDDEN), torch.nan))).all())


def test_the_threshold_flags_the_share_that_was_promised() -> None:
    """Of new values of the same kind at most the share lies above, on average over many draws; of too few values it is
    their largest."""
    draw, flagged = random.Random(1), []
    for _ in range(400):
        limit = quantile_of([draw.gauss(0, 1) for _ in range(59)], 0.05)
        flagged.append(sum(draw.gauss(0, 1) > limit for _ in range(100)) / 100)
    assert 0.04 < sum(flagged) / 400 <= 0.0505
    assert quantile_of([3.0, 1.0, 2.0], 0.05) == 3.0


def test_a_domain_says_what_was_measured() -> None:
    """Shares of flagged validation, test and invented texts, of features that tell them apart."""
    from paretune.data.prepare import Prepared
    from paretune.data.sources import Rows

    def rows(name: str, count: int) -> Rows:
        return Rows(
            tuple(f"{name}-{place}" for place in range(count)),
            tuple(f"{name} {place % 3} {place}" for place in range(count)),
            tuple(classes(count)),
        )

    data = Prepared(
        ("class 0", "class 1", "class 2"),
        {"train": rows("train", ROWS), "validation": rows("validation", 60), "test": rows("test", 90)},
        {},
        [],
    )

    def features_of(texts):
        seeds = {"train": 2, "validation": 6, "test": 7}
        name = texts[0].split()[0]
        return features(len(texts), seeds[name]) if name in seeds else features(len(texts), 8, off=3.0)

    space, domain = fitted_domain(features_of, data)
    assert space.means_ch.shape == (3, HIDDEN)
    assert (domain.validation_rows, domain.test_rows, domain.invented_rows) == (60, 90, 120)
    assert domain.validation_flagged <= domain.share == 0.05 and domain.test_flagged < 0.2
    assert domain.invented_flagged == 1.0


def test_invented_texts_are_the_same_every_time_and_never_blank() -> None:
    """A share that is measured on them can be measured again."""
    texts = invented_texts(120)
    assert texts == invented_texts(120) and len(set(texts)) > 100 and not any(is_blank(one) for one in texts)


@pytest.mark.parametrize("what", ["name", "shape", "width", "variance", "rest"])
def test_tensors_that_are_no_space_are_refused(what: str) -> None:
    """Other names, shapes that do not belong together, variances that are not above 0."""
    tensors = fit_space(features(ROWS, 2), classes(ROWS)).tensors()
    assert torch.equal(space_of(tensors, "f").means_ch, tensors["means"])
    changed = {
        "name": {"mean": tensors["means"]},
        "shape": {"variances": tensors["variances"][:-1]},
        "width": {"means": tensors["means"][:, :-1]},
        "variance": {"variances": -tensors["variances"]},
        "rest": {"rest": torch.zeros(1)},
    }[what]
    with pytest.raises(BundleError, match=r"domain\.safetensors"):
        space_of({**tensors, **changed}, "domain.safetensors")
