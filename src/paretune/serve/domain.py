"""Whether a text is like those that an adapter was trained on: how far its features lie from those of every class.

The distance is Mahalanobis' to the nearest class mean, with one covariance for all classes (Lee et al. 2018,
https://arxiv.org/abs/1807.03888), on features of unit length (Mueller & Hein 2025, https://arxiv.org/abs/2505.18032).
It is compact: the covariance's largest directions, and one variance for the rest. It needs nothing but a model's pooled
features, so any family has it. Not here: which texts it is fitted on, and the threshold (`export/domain.py`).
Axes: r texts, n training texts, h hidden, c classes, k directions.

    space = fit_space(features_nh, classes_n); space.distances(features_rh) > threshold
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from paretune.core.errors import BundleError, said

DIRECTIONS = 128
SHRINKAGE = 0.1  # of the covariance towards a multiple of the unit matrix: there are often fewer texts than features


@dataclass(frozen=True)
class Space:
    """Class means (c, h), directions (k, h) with their variances (k), and the variance of every other direction (1)."""

    means_ch: Tensor
    directions_kh: Tensor
    variances_k: Tensor
    rest: Tensor

    def distances(self, features_rh: Tensor) -> Tensor:
        """Squared distance (r) of each text to its nearest class."""
        means_ch, along_kh = self.means_ch.double(), self.directions_kh.double()
        unit_rh = functional.normalize(features_rh.double(), dim=-1)
        # |z − μ|² of all directions as if they had the variance `rest`, and what the large ones have less than that.
        apart_rc = torch.cdist(unit_rh, means_ch, compute_mode="donot_use_mm_for_euclid_dist").square() / self.rest
        less_k = (1 / self.rest - 1 / self.variances_k.double()).clamp_min(0).sqrt()
        texts_rk, means_ck = (unit_rh @ along_kh.T) * less_k, (means_ch @ along_kh.T) * less_k
        gain_rc = torch.cdist(texts_rk, means_ck, compute_mode="donot_use_mm_for_euclid_dist").square()
        return (apart_rc - gain_rc).amin(dim=-1)

    def tensors(self) -> dict[str, Tensor]:
        """By the names that they have in a file."""
        return {
            "means": self.means_ch,
            "directions": self.directions_kh,
            "variances": self.variances_k,
            "rest": self.rest,
        }


def space_of(tensors: dict[str, Tensor], file: str) -> Space:
    """A space from a file's tensors.

    Raises:
        BundleError: other names, shapes that do not belong together, or a variance that is not above 0.
    """
    if tensors.keys() != {"means", "directions", "variances", "rest"}:
        given = f"{file} holds {', '.join(sorted(tensors))[:80] or 'nothing'}"
        raise BundleError(said(given, "means, directions, variances and rest"))
    means_ch, along_kh, variances_k, rest = (tensors[one] for one in ("means", "directions", "variances", "rest"))
    fits = (
        means_ch.ndim == along_kh.ndim == 2
        and means_ch.shape[1] == along_kh.shape[1]
        and tuple(variances_k.shape) == (along_kh.shape[0],)
        and tuple(rest.shape) == (1,)
    )
    if not fits or not means_ch.shape[0]:
        raise BundleError(said(f"{file}: shapes that do not belong together", "(c, h), (k, h), (k) and (1)"))
    if not bool((variances_k > 0).all()) or not bool((rest > 0).all()):
        raise BundleError(said(f"{file}: a variance that is not above 0", "variances"))
    return Space(means_ch, along_kh, variances_k, rest)


def fit_space(features_nh: Tensor, classes: Sequence[str]) -> Space:
    """Means and the shared covariance of training texts; classes that no text has are left out."""
    unit_nh = functional.normalize(features_nh.double(), dim=-1)
    index = {label: place for place, label in enumerate(sorted(set(classes)))}
    class_n = torch.tensor([index[label] for label in classes])
    means_ch = torch.stack([unit_nh[class_n == place].mean(0) for place in index.values()])
    around_nh = unit_nh - means_ch[class_n]
    variances_h, along_hh = torch.linalg.eigh(around_nh.T @ around_nh / len(unit_nh))
    variances_h, along_hh = variances_h.flip(0).clamp_min(0), along_hh.flip(1).T
    kept = min(DIRECTIONS, len(variances_h) - 1)
    common = max(float(variances_h.mean()), 1e-9)
    shrunk_h = (1 - SHRINKAGE) * variances_h + SHRINKAGE * common
    return Space(
        means_ch=means_ch.float(),
        directions_kh=along_hh[:kept].float().contiguous(),
        variances_k=shrunk_h[:kept].float(),
        rest=shrunk_h[kept:].mean().reshape(1).float(),
    )
