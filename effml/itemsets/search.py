"""The itemset whose column raises the evidence of a sparse Bayesian regression most, by branch and bound.

A column phi_J is 1 on the rows O_J where all items of the itemset J hold, else 0. Let Phi (N, M) be the active columns,
alpha their precisions, beta = 1 / sigma2 that of the noise, Sigma = (A + beta Phi'Phi)^-1, C = sigma2 I + Phi A^-1 Phi'
and u = C^-1 t. Then a column has

    Q = phi'u,   S = phi'C^-1 phi = beta |O| - beta^2 b'Sigma b  with  b = Phi'phi,   rho = Q^2 / S,

and adding it at its best precision raises the log evidence by g(rho) = (rho - 1 - log rho) / 2 when rho > 1
(M. Tipping, A. Faul, "Fast marginal likelihood maximisation for sparse Bayesian models", AISTATS 2003). g increases, so
the search maximises g(rho) - penalty. A node I is cut when no superset J can count, by these lower bounds of S_J:

    (a) |O_J| / lam,     lam    = sigma2 + largest eigenvalue of Phi A^-1 Phi'
    (b) |O_J| / lam(I),  lam(I) = sigma2 + sum_m c_m / alpha_m,   c = Phi'phi_I
    (c) sum_{i in O_J} v_i,  v_i = beta (1 - beta phi_i.'h),  h = max(Sigma, 0) c,   where all v_i > 0

Each gives rho(J) <= max over signs s and over prefixes P of the rows of O_I by decreasing s u_i / v_i of
(sum_P s u_i)^2 / sum_P v_i, and the cheaper max over s of the sum of u_i^2 / v_i over the rows with s u_i > 0. In (a)
and (b), v_i = 1 / lam, the rows are sorted once and prefixes shorter than the smallest support are left out; in (c) the
loops sort into 64 buckets of s u_i / v_i and bound the prefixes that end within a bucket.

(a) is the spectral bound and (b) follows from (phi'phi)^2 <= S phi'C phi with b_m <= min(|O_J|, c_m); (c) holds since
0 <= b <= c. The maximum over subsets of rows is at a prefix because x^2 / y is convex. Active columns need not be
itemsets: all of this holds for any values from 0 to 1.
"""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from sklearn.utils import check_scalar

from effml._cext import itemset_search
from effml.itemsets.problem import Items, Problem, multiplicity_penalty

__all__ = [
    "Found",
    "Items",
    "Problem",
    "evidence_gain",
    "find_best",
    "find_top",
    "multiplicity_penalty",
    "reference_bounds",
    "reference_rho",
]

WORDS = 8  # bit columns are padded to whole 512-bit vectors


def evidence_gain(rho):
    """Return g(rho) = (rho - 1 - log rho) / 2, and 0 where rho <= 1.

    Examples
    --------
    >>> float(evidence_gain(0.5)), round(float(evidence_gain(9.0)), 4)
    (0.0, 2.9014)
    """
    excess = np.maximum(np.asarray(rho, dtype=np.float64) - 1, 0)
    return (excess - np.log1p(excess)) / 2


@dataclass(frozen=True)
class Found:
    """An itemset of the search, or none.

    Attributes
    ----------
    itemset : tuple of int
        Item numbers, ascending; empty when no itemset has a gain above `min_gain`.
    rho, gain : float
        Q^2 / S, and g(rho) less the penalty; 0 when there is none.
    q, s : float
        Q and S of the column, from which alpha = S^2 / (Q^2 - S).
    n_nodes : int
        Itemsets that the whole search looked at; with several threads, it may differ between runs.
    """

    itemset: tuple
    rho: float
    gain: float
    q: float
    s: float
    n_nodes: int


def find_best(problem, *, start=(), n_threads=1, kernel=None):
    """Find the itemset of the largest gain that is not an active column.

    The empty itemset, and so an item that holds on every row, is not looked for. Of equal gains the itemset with fewer
    items wins, then the one first in lexicographic order; the result does not depend on `n_threads` or `start`.

    Parameters
    ----------
    problem : Problem
    start : iterable of itemsets, default=()
        Good ones of earlier searches. They are evaluated first and so help to cut.
    n_threads : int, default=1
    kernel : {"portable", "avx2", "avx512"} or None, default=None
        Instruction set of the loops; None takes the best there is. Results are the same.

    Returns
    -------
    Found

    Examples
    --------
    >>> import numpy as np
    >>> items = Items([[0, 0], [0, 1], [1, 0], [1, 1]] * 10)
    >>> t = 3.0 * items.occurrences((0, 1))
    >>> find_best(Problem(items=items, u=4 * t, beta=4.0)).itemset
    (0, 1)
    """
    found, n_nodes = search(problem, 1, start, n_threads, kernel)
    return found[0] if found else Found((), 0.0, 0.0, 0.0, 0.0, n_nodes)


def find_top(problem, n_best, *, start=(), n_threads=1, kernel=None):
    """Find the `n_best` itemsets of the largest gains, no two of them with the same rows.

    Parameters
    ----------
    problem : Problem
    n_best : int
    start, n_threads, kernel
        See `find_best`.

    Returns
    -------
    list of Found
        Best first; fewer than `n_best` if no more have a gain above `min_gain`.
    """
    check_scalar(n_best, "n_best", Integral, min_val=1)
    return search(problem, n_best, start, n_threads, kernel)[0]


def search(problem, n_best, start, n_threads, kernel):
    """Run the search; return the itemsets, best first, and the number of nodes."""
    check_scalar(n_threads, "n_threads", Integral, min_val=1)
    items = problem.items
    start = [items.check_itemset(itemset, problem.max_order, "start") for itemset in start]
    kernel = kernel_number(kernel)
    if not items.n_items or not items.n_rows:
        return [], 0
    padded = np.zeros((len(start), problem.max_order), dtype=np.int32)
    for row, itemset in zip(padded, start, strict=True):
        row[: len(itemset)] = itemset
    sizes = np.array([len(itemset) for itemset in start], dtype=np.int32)
    packed, _ = packed_search(problem, kernel)
    values, n_items, itemsets, rows, n_nodes = packed.run(padded, sizes, n_best, min(n_threads, items.n_items))
    found = [
        (Found(tuple(itemset[:n].tolist()), rho, gain, q, s, n_nodes), occurrences.tobytes())
        for (gain, rho, q, s), n, itemset, occurrences in zip(values.tolist(), n_items, itemsets, rows, strict=True)
    ]
    found.sort(key=lambda pair: (-pair[0].gain, len(pair[0].itemset), pair[0].itemset))
    distinct = {}
    for one, occurrences in found:
        distinct.setdefault(occurrences, one)
    return list(distinct.values())[:n_best], n_nodes


def packed_search(problem, kernel):
    """Return the problem as the loops take it, rows by decreasing u, and that order of the rows."""
    items = problem.items
    order = np.argsort(-problem.u, kind="stable")
    columns = packed_bits(items.columns[:, order])
    active = packed_bits(problem.active[order].T, itemset_search.COLUMN_PADDING)
    graded = np.zeros((max(1, problem.graded.shape[1]), 64 * columns.shape[1]))
    graded[: problem.graded.shape[1], : items.n_rows] = problem.graded[order].T
    u = np.zeros(64 * columns.shape[1])
    u[: items.n_rows] = problem.u[order]
    signed = np.stack([np.maximum(u, 0), np.minimum(u, 0)]) ** 2
    return itemset_search.ItemsetSearch(
        columns,
        items.variable,
        active,
        problem.active.sum(axis=0, dtype=np.int32),
        graded,
        u,
        signed,
        packed_bits(signed[:, : items.n_rows] > 0),
        problem.covariance,
        1 / problem.alpha,
        problem.penalty,
        (items.n_rows, problem.min_support, min(problem.max_order, items.n_items)),
        (problem.beta, problem.lam, problem.min_gain),
        kernel,
    ), order


def packed_bits(columns, padding=0):
    """Return 0/1 columns (n, n_rows) as bits, uint64 (n + padding, n_words), row 0 in the lowest bit."""
    n, n_rows = columns.shape
    n_words = WORDS * -(-n_rows // (64 * WORDS))
    out = np.zeros((n + padding, 8 * n_words), dtype=np.uint8)
    out[:n, : -(-n_rows // 8)] = np.packbits(columns, axis=1, bitorder="little")
    return out.view("<u8").astype(np.uint64, copy=False)


def kernel_number(kernel):
    """Return the number of a row kernel by name, or of the best there is."""
    names = itemset_search.available_kernels()
    if kernel is None:
        kernel = names[-1]
    if kernel not in names:
        raise ValueError(f"kernel must be None or one of {names} on this processor, got {kernel!r}")
    return itemset_search.KERNEL_NAMES.index(kernel)


# ---------------------------------------------------------------------------------------------------------------------
# The same in numpy, by definition: what the loops are compared with


def reference_rho(problem, itemset):
    """Return Q, S and rho = Q^2 / S of an itemset."""
    phi = problem.items.occurrences(itemset).astype(np.float64)
    b = problem.phi.T @ phi
    q = phi @ problem.u
    s = problem.beta * phi.sum() - problem.beta**2 * (b @ problem.covariance @ b)
    return q, s, q * q / s if s > 0 else np.inf


def reference_bounds(problem, itemset):
    """Return the upper bounds of rho over all supersets of an itemset, as {(lemma, form): bound}.

    Lemma is "a", "b" or "c", form "prefix" or "cheap"; "c" is infinite where some v_i is not positive.
    """
    rows = problem.items.occurrences(itemset)
    phi = problem.phi[rows]
    c = phi.sum(axis=0)
    u = problem.u[rows]
    h = np.maximum(problem.covariance, 0) @ c
    v = {
        "a": np.full(len(u), 1 / problem.lam),
        "b": np.full(len(u), 1 / (1 / problem.beta + (c / problem.alpha).sum())),
        "c": problem.beta * (1 - problem.beta * phi @ h),
    }
    bounds = {}
    for lemma, weights in v.items():
        shortest = 1 if lemma == "c" else problem.min_support
        usable = (weights > 0).all()
        bounds[lemma, "prefix"] = prefix_maximum(u, weights, shortest) if usable else np.inf
        bounds[lemma, "cheap"] = max((u[s * u > 0] ** 2 / weights[s * u > 0]).sum() for s in (1, -1))
        if not usable:
            bounds[lemma, "cheap"] = np.inf
    return bounds


def prefix_maximum(u, v, shortest):
    """Return the maximum of (sum s u)^2 / sum v over signs s and over prefixes, of s u / v in decreasing order."""
    best = 0.0
    for sign in (1, -1):
        order = np.argsort(-sign * u / v, kind="stable")
        x, y = np.cumsum(sign * u[order])[shortest - 1 :], np.cumsum(v[order])[shortest - 1 :]
        best = max([best, *(np.maximum(x, 0) ** 2 / y)])
    return best
