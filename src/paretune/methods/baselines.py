"""Baselines that cost nothing: the majority class, and TF-IDF with logistic regression.

Not here: anything neural. The TF-IDF is a strong one (word 1–2-grams and character n-grams, C chosen on validation
data); a method that does not beat it is a finding (Pedregosa et al. 2011, https://scikit-learn.org).

    Tfidf(TfidfSettings()).fit((texts, labels), (texts, labels), ("earn", "acq"), seed=0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import FeatureUnion

from paretune.core.config import Settings
from paretune.methods.method import Baseline


class Majority(Baseline):
    """Answers the most frequent class, with the classes' shares as probabilities."""

    paper: ClassVar[str] = "https://scikit-learn.org/stable/modules/generated/sklearn.dummy.DummyClassifier.html"
    summary_en: ClassVar[str] = "always the most frequent class"
    summary_ru: ClassVar[str] = "всегда самый частый класс"

    def fit(
        self,
        train: tuple[Sequence[str], Sequence[str]],
        validation: tuple[Sequence[str], Sequence[str]],
        labels: tuple[str, ...],
        seed: int,
    ) -> None:
        counts = Counter(train[1])
        self._shares_c = np.array([counts[label] for label in labels], dtype=float) / len(train[1])

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(self._shares_c, (len(texts), 1))

    def parameters(self) -> int:
        return len(self._shares_c)


class TfidfSettings(Settings):
    """`strengths` are the values of C (inverse regularisation) that are tried on validation data."""

    strengths: tuple[float, ...] = (1.0, 10.0, 100.0)
    max_features: int = 50_000


class Tfidf(Baseline):
    """Word 1–2-grams and character 3–5-grams, weighted, then logistic regression; C by validation log-loss."""

    settings_model: ClassVar[type[Settings]] = TfidfSettings
    paper: ClassVar[str] = "https://scikit-learn.org/stable/modules/feature_extraction.html"
    summary_en: ClassVar[str] = "TF-IDF of words and character n-grams with logistic regression"
    summary_ru: ClassVar[str] = "TF-IDF по словам и символьным n-граммам с логистической регрессией"
    settings: TfidfSettings

    def fit(
        self,
        train: tuple[Sequence[str], Sequence[str]],
        validation: tuple[Sequence[str], Sequence[str]],
        labels: tuple[str, ...],
        seed: int,
    ) -> None:
        size = self.settings.max_features
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=size)
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=size)
        self._features = FeatureUnion([("words", words), ("letters", letters)])
        self._labels = labels
        train_features = csr_matrix(self._features.fit_transform(train[0]))
        validation_features = csr_matrix(self._features.transform(validation[0]))
        alphabetical_c = np.argsort(labels)  # the only order of columns that log_loss knows
        best_loss = np.inf
        for strength in self.settings.strengths:
            model = LogisticRegression(C=strength, max_iter=1000, random_state=seed)
            model.fit(train_features, list(train[1]))
            found_nc = self._ordered(model, validation_features)[:, alphabetical_c]
            loss = log_loss(list(validation[1]), found_nc, labels=sorted(labels))
            if loss < best_loss:
                best_loss, self._model = loss, model

    def _ordered(self, model: LogisticRegression, features: csr_matrix) -> np.ndarray:
        """Probabilities in the order of the study's labels; a label that training lacks gets zero."""
        found_nc = model.predict_proba(features)
        place = {label: index for index, label in enumerate(self._labels)}
        out_nc = np.zeros((found_nc.shape[0], len(self._labels)))
        out_nc[:, [place[str(label)] for label in model.classes_]] = found_nc
        return out_nc

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        return self._ordered(self._model, csr_matrix(self._features.transform(texts)))

    def parameters(self) -> int:
        return int(np.size(self._model.coef_) + np.size(self._model.intercept_))
