"""What else makes small models of trees: functions on scikit-learn's estimators, compared in forests_budget.py.

A rival turns a split of the training rows into settings, each with its error on the held-out rows. A setting can be
built again from all training rows (`build`), which gives the program that ships. An ensemble of few trees is the start
of one of many, so one fit gives many settings.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import islice

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

import effml
from effml._trees import trees_of
from effml.forests import merge_forest
from effml.forests.group_lasso import Problem, group_lasso_path, largest_penalty, refit
from effml.program import footprint_of

CUTS = (255, 31)
LARGEST_BYTES = 32 * 1024
SHORT_LIST = 10
SPLIT_BYTES = 4  # of the smallest split in an exported table
FORESTS = {"random forest": RandomForestClassifier, "extra trees": ExtraTreesClassifier}
MOST_TREES = 48
FOREST_GRID = [
    (kind, share, leaves) for kind in FORESTS for share in ("sqrt", 0.5) for leaves in (8, 16, 32, 64, 128, 256, 1024)
]
BOOSTING_GRID = [(31, rate, leaves) for rate in (0.1, 0.3, 0.7) for leaves in (2, 4, 8, 16, 31)]
BOOSTING_GRID += [(255, 0.3, leaves) for leaves in (2, 4, 8, 16, 31)]
MOST_ROUNDS = {True: 400, False: 150}  # of two classes, of more
TREE_SIZES = 24
PRUNING_POOLS = [(kind, "sqrt", leaves) for kind in FORESTS for leaves in (8, 32, 128)]
REFINED_POOLS = [("random forest", "sqrt", leaves) for leaves in (4, 8, 16, 32)]
REFINED_TREES = 32
REFINED_PENALTIES = np.geomspace(0.6, 5e-3, 8)
REFINED_SHARES = (1.0, 0.1)


@dataclass(frozen=True, eq=False)
class Split:
    """Training rows, and which of them are held out while a setting is chosen."""

    X: np.ndarray
    y: np.ndarray
    inner: np.ndarray
    held_out: np.ndarray
    seed: int

    @property
    def fit_rows(self):
        return self.X[self.inner], self.y[self.inner]

    @property
    def held_rows(self):
        return self.X[self.held_out], self.y[self.held_out]

    @cached_property
    def n_outputs(self):
        n_classes = len(np.unique(self.y))
        return 1 if n_classes == 2 else n_classes


@dataclass(eq=False)
class Setting:
    """A model of a rival: what it is, its float error on held-out rows in %, and how to make it."""

    name: str
    float_error: float
    n_splits: int
    inner: Callable = field(repr=False)  # () -> estimator that the error belongs to
    build: Callable = field(repr=False)  # () -> the same from all training rows
    leaf_bits: int = 8

    @cached_property
    def tried(self):
        return program_and_bytes(self.inner(), self.leaf_bits)

    @cached_property
    def built(self):
        return program_and_bytes(self.build(), self.leaf_bits)

    def may_fit(self, budget):
        return SPLIT_BYTES * self.n_splits < budget and self.tried[1] <= budget

    def error(self, split):
        """Return the held-out error of the integer program in %."""
        X, y = split.held_rows
        return 100 * float(np.mean(self.tried[0].labels(X) != y))


def program_and_bytes(estimator, leaf_bits=8):
    options = {} if isinstance(estimator, DecisionTreeClassifier) else {"leaf_bits": leaf_bits}
    program = effml.lower(estimator, **options)
    return program, footprint_of(program).flash_bytes


def choose(settings, budget, split):
    """Return (setting, held-out error) of the best that fits the budget, also when built from all rows, or None.

    Of those that fit, the few with the least float error are tried as integer programs.
    """
    by_error = sorted(settings, key=lambda one: (one.float_error, one.n_splits))
    short = list(islice((one for one in by_error if one.may_fit(budget)), SHORT_LIST))
    for error, setting in sorted(((one.error(split), one) for one in short), key=lambda pair: pair[0]):
        if setting.built[1] <= budget:
            return setting, error
    return None


def stages(largest):
    return sorted({round(k) for k in np.geomspace(1, largest, 18)})


def error_of(scores, y):
    return 100 * float(np.mean(np.argmax(scores, axis=1) != y))


# -- random forests and single trees ----------------------------------------------------------------------------------


def fit_forest(config, X, y, seed, n_trees=MOST_TREES):
    kind, share, leaves = config
    return FORESTS[kind](n_trees, max_features=share, max_leaf_nodes=leaves, random_state=seed).fit(X, y)


def hard(forest):
    """Return a copy whose leaves hold one class."""
    forest = copy.deepcopy(forest)
    for member in getattr(forest, "estimators_", [forest]):
        values = member.tree_.value
        values[:] = np.eye(values.shape[2])[values.argmax(axis=2)]
    return forest


def members(forest, numbers):
    """Return the forest of some of its trees."""
    part = copy.copy(forest)
    part.estimators_ = [forest.estimators_[k] for k in numbers]
    part.n_estimators = len(part.estimators_)
    return part


def variants(estimator, X, n_outputs):
    """Yield (name, function) of the forms that an ensemble or a tree may ship in."""
    for cuts in CUTS:
        merge = partial(merge_forest, max_cuts=cuts)
        yield f"{cuts} cuts", lambda est, X, merge=merge: merge(est, X=X)
        if n_outputs > 1:
            yield f"{cuts} cuts, hard", lambda est, X, merge=merge: hard(merge(est, X=X))


def votes(forest, X):
    """Return what each tree says, (n_trees, n_rows, n_classes)."""
    return np.stack([member.predict_proba(X) for member in forest.estimators_]).astype(np.float32)


def split_counts(forest):
    return np.diff(trees_of(forest).split_starts)


def small_forest(split):
    """Random forests and extra trees: trees x leaves x features tried at a split."""
    settings = []
    for config in FOREST_GRID:
        whole = cache(partial(fit_forest, config, split.X, split.y, split.seed))
        fitted = fit_forest(config, *split.fit_rows, split.seed)
        for name, form in variants(fitted, split.X, split.n_outputs):
            inner, final = form(fitted, split.fit_rows[0]), cache(lambda form=form, whole=whole: form(whole(), split.X))
            sums, sizes = np.cumsum(votes(inner, split.held_rows[0]), axis=0), np.cumsum(split_counts(inner))
            for k in stages(MOST_TREES):
                settings.append(
                    Setting(
                        f"{k} trees, {config}, {name}",
                        error_of(sums[k - 1], split.held_rows[1]),
                        int(sizes[k - 1]),
                        lambda inner=inner, k=k: members(inner, range(k)),
                        lambda final=final, k=k: members(final(), range(k)),
                    )
                )
    return settings


def pruned_tree(split):
    """One tree, cut back by its cost and complexity."""
    fit = partial(DecisionTreeClassifier, random_state=split.seed)
    path = fit().cost_complexity_pruning_path(*split.fit_rows).ccp_alphas
    numbers = len(path) - np.unique(np.geomspace(2, len(path), TREE_SIZES).astype(int))
    settings = []
    for alpha in path[numbers]:
        fitted = fit(ccp_alpha=alpha).fit(*split.fit_rows)
        for name, form in variants(fitted, split.X, split.n_outputs):
            inner = form(fitted, split.fit_rows[0])
            settings.append(
                Setting(
                    f"alpha = {alpha:.2e}, {name}",
                    100 * (1 - inner.score(*split.held_rows)),
                    int(inner.tree_.n_leaves) - 1,
                    lambda inner=inner: inner,
                    lambda alpha=alpha, form=form: form(fit(ccp_alpha=alpha).fit(split.X, split.y), split.X),
                )
            )
    return settings


def pruned_forest(split):
    """Greedy reduced-error pruning: the held-out rows choose the trees, so the trees are not grown again."""
    settings = []
    for config in PRUNING_POOLS:
        fitted = fit_forest(config, *split.fit_rows, split.seed)
        for name, form in variants(fitted, split.X, split.n_outputs):
            pool = form(fitted, split.fit_rows[0])
            said, sizes = votes(pool, split.held_rows[0]), split_counts(pool)
            chosen, total = [], np.zeros_like(said[0])
            while len(chosen) < MOST_TREES and SPLIT_BYTES * sizes[chosen].sum() < LARGEST_BYTES:
                left = np.setdiff1d(np.arange(MOST_TREES), chosen)
                errors = [error_of(total + said[k], split.held_rows[1]) for k in left]
                chosen.append(left[int(np.argmin(errors))])
                total += said[chosen[-1]]
                model = partial(members, pool, tuple(chosen))
                title = f"{len(chosen)} trees of {config}, {name}"
                settings.append(Setting(title, min(errors), int(sizes[chosen].sum()), model, model))
    return settings


# -- boosting ---------------------------------------------------------------------------------------------------------


def fit_boosting(config, X, y, n_rounds, seed):
    bins, rate, leaves = config
    return HistGradientBoostingClassifier(
        max_iter=n_rounds,
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_bins=bins,
        early_stopping=False,
        random_state=seed,
    ).fit(X, y)


def rounds(model, k):
    part = copy.copy(model)
    part._predictors = model._predictors[:k]
    return part


def small_boosting(split):
    """Gradient boosting over histograms, whose bins bound the cuts: rounds x leaves x learning rate x bins."""
    settings = []
    for config in BOOSTING_GRID:
        n_rounds = LARGEST_BYTES // (SPLIT_BYTES * split.n_outputs * (config[-1] - 1))
        n_rounds = min(MOST_ROUNDS[split.n_outputs == 1], max(n_rounds, 1))
        inner = fit_boosting(config, *split.fit_rows, n_rounds, split.seed)
        whole = cache(partial(fit_boosting, config, split.X, split.y, n_rounds, split.seed))
        sizes = np.cumsum([sum(tree.get_n_leaf_nodes() - 1 for tree in trees) for trees in inner._predictors])
        labels = dict(enumerate(inner.staged_predict(split.held_rows[0]), start=1))
        for k in stages(n_rounds):
            for leaf_bits in (8, 16):
                settings.append(
                    Setting(
                        f"{k} rounds of (bins, rate, leaves) = {config}, {leaf_bits} bits",
                        100 * float(np.mean(labels[k] != split.held_rows[1])),
                        int(sizes[k - 1]),
                        lambda inner=inner, k=k: rounds(inner, k),
                        lambda whole=whole, k=k: rounds(whole(), k),
                        leaf_bits,
                    )
                )
    return settings


# -- leaf refinement --------------------------------------------------------------------------------------------------


def refined_forest(split):
    """Leaf values fitted again by logistic regression, with an L1 penalty on whole trees (group lasso)."""
    settings = []
    for config in REFINED_POOLS:
        fit = cache(lambda all_rows, config=config: _Refined(config, split, all_rows))
        part = fit(False)
        for step in range(len(REFINED_PENALTIES)):
            for share in REFINED_SHARES:
                model = part.model(step, share)
                if model is None:
                    continue
                settings.append(
                    Setting(
                        f"{model.n_estimators} trees of {config}, share {share}",
                        100 * (1 - model.score(*split.held_rows)),
                        int(split_counts(model).sum()),
                        lambda model=model: model,
                        lambda fit=fit, step=step, share=share, model=model: fit(True).model(step, share) or model,
                    )
                )
    return settings


class _Refined:
    """A forest with its path of leaf values; a leaf of a tree is an exit of a snippet."""

    def __init__(self, config, split, all_rows):
        X, y = (split.X, split.y) if all_rows else split.fit_rows
        self.forest = merge_forest(fit_forest(config, X, y, split.seed, REFINED_TREES), CUTS[0], X)
        trees = trees_of(self.forest)
        leaves = np.diff(trees.leaf_starts)
        codes = (trees.leaves_of(X) - trees.leaf_starts[:-1]).astype(np.uint8)
        target = np.eye(trees.n_outputs, dtype=np.float32)[np.searchsorted(self.forest.classes_, y)]
        target, loss = (target[:, 1:], "logistic") if trees.n_outputs == 2 else (target, "multinomial")
        self.problem = Problem(codes, leaves, target, np.sqrt(leaves), loss)
        self.trees, penalties = trees, largest_penalty(self.problem) * REFINED_PENALTIES
        self.points = list(group_lasso_path(self.problem, penalties))

    def model(self, step, share):
        """Return the forest of the trees in use, or None."""
        point = self.points[step]
        used = np.flatnonzero(point.used)
        if not len(used):
            return None
        if share < 1:
            point = refit(self.problem, point, share * point.penalty)
        scores = np.hstack([-point.coef / 2, point.coef / 2]) if point.coef.shape[1] == 1 else point.coef
        start = np.hstack([-point.intercept / 2, point.intercept / 2]) if len(point.intercept) == 1 else point.intercept
        scores = scores + start / len(used)
        exits = self.problem.exits_of(used)
        scores = scores - scores[exits].mean()  # no label changes
        scores = 0.5 + 0.5 * scores / np.abs(scores[exits]).max()
        model = copy.deepcopy(members(self.forest, used))
        for k, member in zip(used, model.estimators_, strict=True):
            mine = scores[self.trees.leaf_starts[k] : self.trees.leaf_starts[k + 1]]
            values, nodes = member.tree_.value, member.tree_.children_left < 0
            values[self._leaf_nodes(member, k, nodes), 0] = mine
        return model

    def _leaf_nodes(self, member, k, nodes):
        """Return the nodes of scikit-learn's tree in the order of the leaves of `Trees`."""
        one = self.trees.subset([k])
        left, right, place = member.tree_.children_left, member.tree_.children_right, np.empty(nodes.sum(), dtype=int)
        stack = [(0, int(one.roots[0]))]
        while stack:
            node, split = stack.pop()
            if split < 0:
                place[~split] = node
            else:
                stack += [(left[node], int(one.children[split, 0])), (right[node], int(one.children[split, 1]))]
        return place


RIVALS = {
    "small forest": small_forest,
    "small boosting": small_boosting,
    "pruned tree": pruned_tree,
    "pruned forest": pruned_forest,
    "refined forest": refined_forest,
}
