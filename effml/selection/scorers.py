"""Scorers that measure what a fitted model costs, alone or beside its accuracy."""

import inspect

from effml.selection.budget import QUANTITIES

__all__ = ["footprint_scorer"]


def footprint_scorer(quantity, *, target="host", input_dtype="float32"):
    """A scorer that returns the negative footprint of the fitted model, so that greater is better.

    Parameters
    ----------
    quantity : {"flash_bytes", "ram_bytes", "n_operations", "n_parameters", "bits"}
        The number of :func:`effml.footprint` to score.
    target : str, default="host"
        Target whose code size is assumed.
    input_dtype : {"float32", "int32", "int16", "uint8"}, default="float32"
        Type of the raw row on the device.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y) -> float``. Picklable; `X`, `y` and `sample_weight` are accepted and ignored: a
        footprint depends on the model alone.

    Raises
    ------
    ValueError
        If `quantity` is unknown.

    Examples
    --------
    >>> from effml.selection import footprint_scorer
    >>> scoring = {"accuracy": "accuracy", "flash_bytes": footprint_scorer("flash_bytes")}
    >>> scoring["flash_bytes"]
    footprint_scorer('flash_bytes', target='host', input_dtype='float32')
    """
    return _FootprintScorer(quantity, target, input_dtype)


class _FootprintScorer:
    """A class, not a closure, so that it can be pickled."""

    def __init__(self, quantity, target, input_dtype):
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity must be one of {', '.join(QUANTITIES)}; got {quantity!r}")
        self.quantity = quantity
        self.target = target
        self.input_dtype = input_dtype

    def __call__(self, estimator, X=None, y=None, **ignored):
        return -float(measure(estimator, self.target, self.input_dtype)[self.quantity])

    def _accept_sample_weight(self):
        # scikit-learn asks each scorer of a search given sample weights; a footprint is right under any weights.
        return True

    def __repr__(self):
        return f"footprint_scorer({self.quantity!r}, target={self.target!r}, input_dtype={self.input_dtype!r})"


def measure(estimator, target="host", input_dtype="float32"):
    """Footprint of a fitted estimator as a dict over QUANTITIES."""
    from effml.export import footprint  # late: it loads the families' lowerings

    measured = footprint(estimator, target=target, input_dtype=input_dtype)
    return {quantity: getattr(measured, quantity) for quantity in QUANTITIES}


class MeasuredScore(float):
    """A score that carries the footprint of the model which earned it, or the reason why there is none.

    Being a float, it goes through scikit-learn's search machinery, worker processes included, as any single score.
    """

    footprint = None  # dict over QUANTITIES, None where the candidate failed
    failure = None  # str where it failed

    @classmethod
    def measured(cls, score, footprint):
        self = cls(score)
        self.footprint = footprint
        return self

    @classmethod
    def failed(cls, score, error):
        self = cls(score)
        self.failure = f"{type(error).__name__}: {error}"
        return self


class MeasuringScorer:
    """The user's scorer with the footprint attached to each score: one lowering for all quantities.

    A candidate that cannot be scored or lowered gets `error_score` and the reason, or raises if that is "raise".
    """

    def __init__(self, scorer, *, target, input_dtype, error_score):
        self.scorer = scorer
        self.target = target
        self.input_dtype = input_dtype
        self.error_score = error_score

    def __call__(self, estimator, X, y=None, **params):
        labels = () if y is None else (y,)
        try:
            score = _one_number(self.scorer(estimator, X, *labels, **params))
            return MeasuredScore.measured(score, measure(estimator, self.target, self.input_dtype))
        except Exception as error:
            if self.error_score == "raise":
                raise
            return MeasuredScore.failed(self.error_score, error)

    def _accept_sample_weight(self):
        if hasattr(self.scorer, "_accept_sample_weight"):
            return self.scorer._accept_sample_weight()
        return "sample_weight" in inspect.signature(self.scorer).parameters

    def __getattr__(self, name):
        # metadata routing asks the scorer what it wants; only the user's scorer can tell, if it takes part at all
        if name == "get_metadata_routing":
            return getattr(self.scorer, name)
        raise AttributeError(name)

    def __repr__(self):
        return f"MeasuringScorer({self.scorer!r}, target={self.target!r})"


def _one_number(score):
    try:
        return float(score)
    except (TypeError, ValueError):
        raise TypeError(f"scoring must return one number, got {score!r}") from None
