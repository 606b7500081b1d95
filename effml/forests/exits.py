"""The exits that rows take: one number a snippet, or one-hot columns."""

import numpy as np
from scipy.sparse import csr_matrix

from effml._cext.snippets import count_shown, fill_dense, fill_sparse
from effml._cext.snippets import exit_codes as walk
from effml.forests.mining import MAX_SIZE, distinct_tests

__all__ = ["exit_codes", "exit_columns", "one_hot"]


def exit_codes(snippets, X, *, n_threads=1):
    """Return the number of the exit that each row takes in each snippet.

    Parameters
    ----------
    snippets : Snippets
        Of at most 255 splits each.
    X : array (n_rows, n_features)
        Cast to float32; NaN goes where the snippets send it.
    n_threads : int, default=1
        The result does not depend on it.

    Returns
    -------
    uint8 array (n_rows, n_snippets)

    Examples
    --------
    >>> from effml.forests.mining import stump
    >>> exit_codes(stump(0, 2.5), [[2.5], [2.6]]).tolist()
    [[0], [1]]
    """
    trees = snippets.trees
    X = np.ascontiguousarray(X, dtype=np.float32)
    _check_links(trees)
    if trees.n_splits and not 0 <= trees.feature.min() <= trees.feature.max() < X.shape[1]:
        raise ValueError(f"X has {X.shape[1]} columns, but the snippets ask for column {trees.feature.max()}")
    feature, threshold, missing_right, test = distinct_tests(trees.feature, trees.threshold, trees.missing_right)
    out = np.empty((len(X), snippets.n_snippets), dtype=np.uint8)
    walk(
        X,
        feature,
        threshold.astype(np.float32),
        missing_right.astype(np.uint8),
        test,
        np.ascontiguousarray(trees.children),
        np.ascontiguousarray(trees.split_starts),
        np.empty((n_threads, max(len(feature), 1)), dtype=np.uint64),
        out,
    )
    return out


def _check_links(trees):
    """Raise unless every link stays within its tree: snippets may come from a file, and the walk trusts them."""
    first, tree = trees.split_starts, np.arange(trees.n_trees)
    n_splits = np.diff(first)
    owner = np.repeat(tree, n_splits)
    exit_number = ~trees.children - (first[:-1] + tree)[owner, None] if len(owner) == trees.n_splits else None
    sound = (
        exit_number is not None
        and trees.children.shape == (trees.n_splits, 2)
        and (trees.roots == first[:-1]).all()
        and (n_splits >= 1).all()
        and np.where(
            trees.children >= 0,
            (trees.children > np.arange(trees.n_splits)[:, None]) & (trees.children < first[1:][owner, None]),
            (exit_number >= 0) & (exit_number <= n_splits[owner, None]),
        ).all()
    )
    if not sound:
        raise ValueError("the snippets are damaged: a split links out of its snippet")
    if len(n_splits) and n_splits.max() > MAX_SIZE:
        raise ValueError(f"a snippet has {n_splits.max()} splits, at most {MAX_SIZE} are accepted")


def exit_columns(n_exits, drop_last):
    """Return the first column of each snippet among the one-hot columns, then their number: int64 (n_snippets + 1,)."""
    return np.concatenate([[0], np.cumsum(np.asarray(n_exits) - bool(drop_last))])


def one_hot(codes, n_exits, *, drop_last=True, sparse=False, dtype=np.float64, n_threads=1):
    """Spread exit numbers into one column an exit, 1 where the row takes it.

    Parameters
    ----------
    codes : uint8 array (n_rows, n_snippets)
    n_exits : int array (n_snippets,)
    drop_last : bool, default=True
        Leave out the last exit of each snippet, which the others imply.
    sparse : bool, default=False
        Return a scipy CSR matrix.
    dtype : dtype, default=float64
    n_threads : int, default=1

    Returns
    -------
    array or csr_matrix (n_rows, n_columns)

    Examples
    --------
    >>> import numpy as np
    >>> one_hot(np.array([[0, 2], [1, 1]], dtype=np.uint8), [2, 3], dtype=int)
    array([[1, 0, 0],
           [0, 0, 1]])
    """
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    n_columns = np.asarray(n_exits) - bool(drop_last)
    first = exit_columns(n_exits, drop_last)
    shape = len(codes), int(first[-1])
    if codes.shape[1] != len(n_columns):
        raise ValueError(f"codes has {codes.shape[1]} columns, but n_exits names {len(n_columns)} snippets")
    limit = np.minimum(n_columns, MAX_SIZE).astype(np.uint8)  # 256 columns and 255 differ by the last exit alone
    if not drop_last and (n_columns > MAX_SIZE).any():
        raise ValueError(f"a snippet has {n_columns.max()} exits, at most {MAX_SIZE} are accepted with drop_last=False")
    if not sparse:
        is_direct = np.dtype(dtype) in (np.uint8, np.float32, np.float64)
        out = np.zeros(shape, dtype=dtype if is_direct else np.uint8)
        fill_dense(codes, limit, first, out, n_threads)
        return out.astype(dtype, copy=False)
    begin = np.zeros(len(codes) + 1, dtype=np.int64)
    count_shown(codes, limit, begin[1:], n_threads)
    np.cumsum(begin, out=begin)
    columns = np.empty(begin[-1], dtype=np.int32)
    fill_sparse(codes, limit, first, begin, columns, n_threads)
    return csr_matrix((np.ones(len(columns), dtype=dtype), columns, begin), shape=shape)
