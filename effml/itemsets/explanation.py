"""Which conditions drive an optimiser's prediction: a posterior summary, as values and as text.

The prediction at a sample of candidates is described by few itemsets, chosen by an itemset model of it. Their weights
are those of least squares, a linear function of f at the sample, so f's posterior gives them a mean and a covariance:
w = B f, with B = pinv([1, Phi]).

Source: S. Woody, C. Carvalho, J. Murray, "Model interpretation through lower-dimensional posterior summarization",
Journal of Computational and Graphical Statistics 30, 2021.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from effml.itemsets.conditions import condition_text

__all__ = ["Effect", "Explanation"]


@dataclass(frozen=True)
class Effect:
    """What a condition adds to the prediction.

    Attributes
    ----------
    text : str
        Conditions joined by "and", or the name of a column that enters linearly.
    mean, std : float
        Of what is added where the condition holds, or over the whole range of a linear column; in the explanation of a
        point, of what is added there.
    support : int or None
        Measurements on which the condition holds; None for a linear column.
    """

    text: str
    mean: float
    std: float
    support: int | None

    def __str__(self):
        support = "" if self.support is None else f" ({self.support} measured)"
        return f"{self.mean:+.4g} +- {self.std:.2g}  {self.text}{support}"


@dataclass(frozen=True)
class Explanation:
    """A prediction as a sum: base, conditions, and what they leave out.

    Attributes
    ----------
    base : float
        The prediction where no condition holds and every linear column is at its lower end.
    effects : list of Effect
        The most important first; of a point, those that hold there.
    share : float
        Share of the variance of the predictions, over a sample of the candidates, that base and conditions account for.
    rest : float or None
        Of a point, what they leave out of the prediction there; None overall.
    mean, std : float or None
        Of a point, the prediction, base + effects + rest, and its standard deviation; None overall.
    point : object
        The point explained; None overall.
    """

    base: float
    effects: list
    share: float
    rest: float | None = None
    mean: float | None = None
    std: float | None = None
    point: object = None

    def __str__(self):
        lines = [] if self.point is None else [f"{self.mean:.4g} +- {self.std:.2g} predicted at {self.point}"]
        lines += [f"{self.base:+.4g}  base", *map(str, self.effects)]
        lines += [] if self.point is None else [f"{self.rest:+.4g}  everything else"]
        return "\n".join([*lines, f"these conditions are {100 * self.share:.0f} % of the variance of the predictions"])


class Summary:
    """Few conditions that describe what a surrogate predicts at a sample of candidates.

    Parameters
    ----------
    surrogate : Surrogate
    sample : array (n, n_features)
    n_effects : int
        Conditions at most.
    """

    def __init__(self, surrogate, sample, n_effects):
        mean, covariance = surrogate.joint(sample)
        self.surrogate = surrogate
        self.model = clone(surrogate.regressor).fit(sample, mean)
        phi = self.model.transform(sample)
        importance = np.abs(self.model.coef_) * phi.std(axis=0)
        self.kept = np.argsort(-importance, kind="stable")[:n_effects]
        design = np.column_stack([np.ones(len(sample)), phi[:, self.kept]])
        B = np.linalg.pinv(design, rcond=1e-8)
        self.base, *weights = B @ mean
        self.weights = np.array(weights)
        self.std = np.sqrt(np.maximum(np.diag(B @ covariance @ B.T), 0.0))[1:]
        left = mean - design @ np.append(self.base, weights)
        self.share = float(1 - left.var() / mean.var()) if mean.var() > 0 else 1.0
        self._order = np.argsort(-np.abs(self.weights) * phi[:, self.kept].std(axis=0), kind="stable")

    def overall(self, names, levels, measured, sign):
        """Return the explanation of all predictions; `measured` are the rows that supports count."""
        texts, supports = self._texts(names, levels), self._supports(measured)
        effects = [
            Effect(texts[k], sign * float(self.weights[k]), float(self.std[k]), supports[k]) for k in self._order
        ]
        return Explanation(sign * float(self.base), effects, self.share)

    def at(self, row, names, levels, measured, sign, point):
        """Return the explanation of the prediction at a row."""
        texts, supports = self._texts(names, levels), self._supports(measured)
        phi = self.model.transform(row[None])[0, self.kept]
        added, spread = self.weights * phi, self.std * phi
        order = [k for k in np.argsort(-np.abs(added), kind="stable") if phi[k] != 0]
        effects = [Effect(texts[k], sign * float(added[k]), float(spread[k]), supports[k]) for k in order]
        mean, std = (float(part[0]) for part in self.surrogate.predict(row[None]))
        rest = mean - float(self.base) - float(added.sum())
        return Explanation(sign * float(self.base), effects, self.share, sign * rest, sign * mean, std, point)

    def _supports(self, measured):
        phi = self.model.transform(measured)[:, self.kept]
        n_itemsets = len(self.model.conditions_)
        return [int(phi[:, k].sum()) if term < n_itemsets else None for k, term in enumerate(self.kept)]

    def _texts(self, names, levels):
        """Return the text of each term; the model was fitted to numbers in place of levels."""
        model, texts = self.model, []
        for conditions in model.conditions_:
            parts = []
            for j, codes in conditions:
                shown = np.arange(2) if model.binary_[j] else None
                if model.categories_[j] is not None:
                    shown = levels[j][model.categories_[j].astype(np.intp)]
                parts.append(condition_text(names[j], codes, model.cuts_[j], shown))
            texts.append(" and ".join(parts))
        texts += [names[j] for j in model.linear_features_]
        return [texts[k] for k in self.kept]
