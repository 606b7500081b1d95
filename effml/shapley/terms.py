"""Terms of which a model's score is the sum, each with exact interventional Shapley values and pairwise interactions.

All read matrices (n_rows, n_columns) of what a row became on its way to the model. `player` gives the player of each
column; with groups several columns have one. A term returns values (n_rows, n_players, n_outputs) and, if asked,
Shapley interaction indices (n_rows, n_players, n_players, n_outputs) with zeros on the diagonal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import beta

from effml._cext.tree_shapley import tree_shapley
from effml._trees import Trees

__all__ = ["Additive", "NoClosedForm", "Piece", "Tables", "TreeSum"]


class NoClosedForm(ValueError):
    """The output of a model is no sum of terms that can be integrated; the message says why."""


@dataclass(frozen=True, eq=False)
class Additive:
    """A sum of functions of one column each: phi_j = f_j(x_j) - mean over b of f_j(b_j), and no interactions.

    Attributes
    ----------
    parts : callable
        Takes a matrix and returns f_j of each column, (n_rows, n_columns, n_outputs).
    """

    parts: Callable

    @classmethod
    def linear(cls, coef):
        """Return the term of ``X @ coef`` for coef (n_columns, n_outputs)."""
        return cls(lambda X: X[:, :, None] * coef)

    def shapley(self, rows, background, player, n_players, interactions=False):
        moved = self.parts(rows) - self.parts(background).mean(axis=0)
        return by_player(moved, player, n_players), no_pairs(moved, n_players) if interactions else None


@dataclass(frozen=True, eq=False)
class Tables:
    """A sum of table entries, each chosen by the code of one column, or of a column and its parent.

    Attributes
    ----------
    columns, parents : int array (n_factors,)
        Parent -1: none.
    tables : list of array (n_states + 1, n_parent_states + 1, n_outputs)
        One row and column more than there are states, for codes out of range; n_parent_states is 0 without a parent.
    """

    columns: np.ndarray
    parents: np.ndarray
    tables: list

    def shapley(self, rows, background, player, n_players, interactions=False):
        n_outputs = self.tables[0].shape[2] if self.tables else 1
        values = np.zeros((len(rows), n_players, n_outputs))
        pairs = np.zeros((len(rows), n_players, n_players, n_outputs)) if interactions else None
        for column, parent, table in zip(self.columns, self.parents, self.tables, strict=True):
            own, other = _codes(rows, column, len(table)), _codes(rows, parent, table.shape[1])
            own_b, other_b = _codes(background, column, len(table)), _codes(background, parent, table.shape[1])
            entry = table[own, other]  # g(x_i, x_p)
            mean = table[own_b, other_b].mean(axis=0)  # E g(b_i, b_p)
            i, p = player[column], player[parent]
            if parent < 0 or i == p:
                values[:, i] += entry - mean
                continue
            of_parent = np.bincount(other_b, minlength=table.shape[1]) / len(background)
            of_own = np.bincount(own_b, minlength=len(table)) / len(background)
            only_own = np.einsum("uvk,v->uk", table, of_parent)[own]  # E g(x_i, b_p)
            only_parent = np.einsum("uvk,u->vk", table, of_own)[other]  # E g(b_i, x_p)
            joint = entry - only_own - only_parent + mean
            values[:, i] += only_own - mean + joint / 2
            values[:, p] += only_parent - mean + joint / 2
            if interactions:
                pairs[:, i, p] += joint
                pairs[:, p, i] += joint
        return values, pairs


def _codes(X, column, n):
    """Return the codes of a column, those out of range as n - 1; zeros without a column."""
    if column < 0:
        return np.zeros(len(X), dtype=np.int64)
    codes = X[:, column]
    return np.where((codes >= 0) & (codes < n - 1), codes, n - 1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class TreeSum:
    """A sum of trees.

    A leaf behind `a` conditions that only the row meets and `b` that only the background row meets (by players) pays
    (a - 1)! b! / (a + b)! of its value to each of the former and minus a! (b - 1)! / (a + b)! to each of the latter.

    Attributes
    ----------
    trees : Trees
    dtype : dtype or None
        What rows are cast to before they are compared.
    """

    trees: Trees
    dtype: type | None = None

    def shapley(self, rows, background, player, n_players, interactions=False):
        trees, n_outputs = self.trees, self.trees.n_outputs
        values = np.zeros((len(rows), n_players, n_outputs))
        pairs = np.zeros((len(rows) if interactions else 0, n_players, n_players, n_outputs))
        if trees.n_splits and len(rows):
            tree_shapley(
                trees.feature,
                np.ascontiguousarray(trees.threshold, dtype=np.float64),
                np.ascontiguousarray(trees.children, dtype=np.int64),
                np.ascontiguousarray(trees.missing_right, dtype=np.uint8),
                np.ascontiguousarray(trees.roots, dtype=np.int64),
                np.ascontiguousarray(trees.value, dtype=np.float64),
                _outputs_of_trees(trees),
                np.ascontiguousarray(player, dtype=np.int64),
                self._as_compared(rows),
                np.ascontiguousarray(self._as_compared(background).T),
                leaf_weights(min(trees.depth(), n_players)),
                np.arange(len(background)),
                np.zeros(n_players, dtype=np.int8),
                np.zeros(n_players, dtype=np.int64),
                values,
                pairs,
            )
        return values / len(background), pairs / len(background) if interactions else None

    def _as_compared(self, X):
        X = X if self.dtype is None else np.asarray(X).astype(self.dtype)
        return np.ascontiguousarray(X, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Piece:
    """One term of a score, and how model inputs become the matrix that it reads.

    Attributes
    ----------
    prepare : callable
        Takes model inputs (array or DataFrame), returns a matrix.
    source : int array (n_columns,)
        The raw column that each column of the matrix is a function of.
    term : Additive, Tables or TreeSum
    pick : int array (n_outputs,) or None
        The term's output that each output takes; None: the same.
    scale : float array (n_outputs,)
        What it is multiplied with.
    """

    prepare: Callable
    source: np.ndarray
    term: Additive | Tables | TreeSum
    pick: np.ndarray | None = None
    scale: np.ndarray | float = 1.0


def leaf_weights(most):
    """Return what a leaf behind a present and b absent players pays, (5, m, m) with m = most + 1, a and b last.

    To a present player, (minus) to an absent one; to the interaction of two present ones, of two absent ones, (minus)
    of one each: integrals over q of q**a (1 - q)**b without one or two of the factors.
    """
    a, b = np.meshgrid(np.arange(most + 1.0), np.arange(most + 1.0), indexing="ij")
    arguments = [(a, b + 1), (a + 1, b), (a - 1, b + 1), (a + 1, b - 1), (a, b)]
    return np.stack([np.where((p > 0) & (q > 0), beta(np.maximum(p, 1), np.maximum(q, 1)), 0) for p, q in arguments])


def _outputs_of_trees(trees):
    """Return the first output that each tree adds to, and the one after its last: int64 (n_trees, 2)."""
    used = np.zeros((trees.n_trees, trees.n_outputs), dtype=bool)
    tree, node = np.arange(trees.n_trees), trees.roots
    while len(node):
        np.logical_or.at(used, tree[node < 0], trees.value[~node[node < 0]] != 0)
        tree, node = np.repeat(tree[node >= 0], 2), trees.children[node[node >= 0]].ravel()
    last = trees.n_outputs - used[:, ::-1].argmax(axis=1)
    return np.stack([used.argmax(axis=1), np.where(used.any(axis=1), last, 0)], axis=1).astype(np.int64)


def by_player(parts, player, n_players):
    """Return the sums of parts (n_rows, n_columns, n_outputs) over the columns of each player."""
    values = np.zeros((len(parts), n_players, parts.shape[2]))
    np.add.at(values, (slice(None), player), parts)
    return values


def no_pairs(parts, n_players):
    """Return interactions that are all zero."""
    return np.zeros((len(parts), n_players, n_players, parts.shape[2]))
