"""Baselines that cost nothing: the majority class, and TF-IDF with logistic regression.

Not here: anything neural, and the regression with its search (`regression.py`). The TF-IDF is a strong one (word
1–2-grams and character n-grams, C and class weights chosen on validation data); a method that does not beat it is a
finding (Pedregosa et al. 2011, https://scikit-learn.org). It draws nothing at random: all seeds give the same.

    Tfidf(TfidfSettings()).fit((texts, labels), (texts, labels), ("earn", "acq"), seed=0, metric="accuracy")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion

from paretune.core.config import Settings
from paretune.methods.method import Baseline, Choice
from paretune.methods.regression import Strengths, searched


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
        metric: str,
    ) -> Choice | None:
        counts = Counter(train[1])
        self._shares_c = np.array([counts[label] for label in labels], dtype=float) / len(train[1])
        return None

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(self._shares_c, (len(texts), 1))

    def parameters(self) -> int:
        return len(self._shares_c)


class TfidfSettings(Settings):
    """`strengths` are the values of C (inverse regularisation) that are tried on validation data; past an edge the
    search goes on, twice at most."""

    strengths: Strengths = (1.0, 10.0, 100.0)
    max_features: int = Field(default=50_000, ge=1)


class Tfidf(Baseline):
    """Word 1–2-grams and character 3–5-grams, weighted, then logistic regression. Where no training text has a word of
    two characters (as scikit-learn counts them), character n-grams alone."""

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
        metric: str,
    ) -> Choice | None:
        size = self.settings.max_features
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=size)
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=size)
        analyse = words.build_analyzer()
        has_words = any(analyse(text) for text in train[0])  # scikit-learn raises where a vocabulary is empty
        self._features = FeatureUnion([*([("words", words)] if has_words else []), ("letters", letters)])
        kind = "tf-idf" if has_words else "tf-idf of characters alone"
        found = searched(
            {kind: csr_matrix(self._features.fit_transform(train[0]))},
            train[1],
            {kind: csr_matrix(self._features.transform(validation[0]))},
            validation[1],
            labels,
            metric,
            self.settings.strengths,
        )
        self._fit = found.fit
        return found.choice

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        return self._fit.probabilities(csr_matrix(self._features.transform(texts)))

    def parameters(self) -> int:
        learnt_c = self._fit.weight_ch.any(axis=1)
        return int(learnt_c.sum()) * (self._fit.weight_ch.shape[1] + 1)
