"""Loops behind effml.itemsets.search: depth-first branch and bound over itemsets held as bits of rows.

Vocabulary. The *rows* of an itemset are those on which all its items hold, 64 to a word, sorted by decreasing u. A node
is an itemset; its *candidates* are the items that its supersets may take. Symbols are those of effml.itemsets.search:
rho = Q^2 / S, the gain g(rho), the lower bounds (a), (b), (c) of S.
"""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, fmax, fmin, log1p
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import numpy as np

KERNEL_NAMES = ("portable", "avx2", "avx512")
COLUMN_PADDING = COUNT_B_PAD

cdef double RELATIVE_SLACK = 1e-8  # of a bound, for the rounding of its sums
cdef double ABSOLUTE_SLACK = 1e-12  # of a gain: equal ones are never cut, whatever the order of the search
cdef double TINY = 1e-6  # v_i above this share of beta count as positive
cdef int HEED = 16  # items, for each thread, whose supersets are searched before Ctrl-C is looked for again
cdef double REDUNDANT = 1e-8  # S below this share of beta |O| is rounding noise

fill_lanes()


def available_kernels():
    """Names of the row kernels this processor can run, slowest first."""
    cdef RowKernels kernels
    return [KERNEL_NAMES[number] for number in range(N_ROW_KERNELS) if find_row_kernels(number, &kernels)]


# ---------------------------------------------------------------------------------------------------------------------
# Values of a node


cdef inline double gain(double rho) noexcept nogil:
    """g(rho) = (rho - 1 - log rho) / 2, and 0 for rho <= 1."""
    return 0.5 * (rho - 1 - log1p(rho - 1)) if rho > 1 else 0.0


cdef inline bint hopeless(const Search* s, double bound, double penalty) noexcept nogil:
    """No itemset with rho <= bound and at least this penalty can be among the best."""
    cdef double score
    bound = bound * (1 + RELATIVE_SLACK)
    if bound <= 1:
        return True
    score = gain(bound) - penalty + ABSOLUTE_SLACK
    return score <= s.min_gain or score < read_shared(s.threshold)


cdef inline void project(const Search* s, Work* w, const uint64_t* rows) noexcept nogil:
    """b = Phi' phi; the entries of bit columns also as whole numbers."""
    cdef int m
    if s.n_bits > 0:
        s.kernels.count(rows, 1, s.active, s.n_bits, s.n_words, s.n_words, w.counts, s.n_bits)
    for m in range(s.n_bits):
        w.b[m] = w.counts[m]
    for m in range(s.n_bits, s.n_active):
        w.b[m] = s.kernels.sum(rows, s.graded + (m - s.n_bits) * 64 * s.n_words, s.n_words)


cdef double sparsity(const Search* s, const double* b, int64_t n, int32_t* nonzero) noexcept nogil:
    """S = beta n - beta^2 b' Sigma b; most entries of b are 0, `nonzero` (n_active,) is filled with the others."""
    cdef int i, j, k, size = 0
    cdef const double* sigma
    cdef double row, total = 0
    for k in range(s.n_active):
        nonzero[size] = k
        size = size + (b[k] != 0)
    for i in range(size):
        k = nonzero[i]
        sigma = s.sigma + k * s.n_active
        row = 0.5 * sigma[k] * b[k]
        for j in range(i):
            row += sigma[nonzero[j]] * b[nonzero[j]]
        total += row * b[k]
    return s.beta * n - 2 * s.beta * s.beta * total


cdef bint is_active(const Search* s, const int32_t* counts, int64_t n) noexcept nogil:
    """The rows are those of an active column: all of them are in it, and it has no more."""
    cdef int m
    for m in range(s.n_bits):
        if counts[m] == n and s.active_size[m] == n:
            return True
    return False


# ---------------------------------------------------------------------------------------------------------------------
# Bounds of rho over the supersets of a node


cdef double node_lam(const Search* s, const double* b) noexcept nogil:
    """The smaller of lam (a) and lam(I) = sigma2 + sum_m c_m / alpha_m (b)."""
    cdef int m
    cdef double lam = 1 / s.beta
    for m in range(s.n_active):
        lam += b[m] * s.inverse_alpha[m]
    return fmin(lam, s.lam)


cdef double cheap_bound(const Search* s, const uint64_t* rows, double lam) noexcept nogil:
    """lam times the larger sum of u^2 over the rows of one sign."""
    cdef double positive = s.kernels.sum(rows, s.u_squared, s.n_words)
    cdef double negative = s.kernels.sum(rows, s.u_squared + 64 * s.n_words, s.n_words)
    return lam * fmax(positive, negative)


cdef void fill_h(const Search* s, const double* c, double* h) noexcept nogil:
    """h = max(Sigma, 0) c."""
    cdef int k, m
    for k in range(s.n_active):
        h[k] = 0
        for m in range(s.n_active):
            h[k] += fmax(s.sigma[k * s.n_active + m], 0.0) * c[m]


cdef void weigh_rows(const Search* s, const uint64_t* rows, const double* h, double* v) noexcept nogil:
    """v_i = beta (1 - beta phi_i' h) for the rows of the node (c)."""
    cdef int k, j
    cdef int64_t word
    cdef const double* x
    cdef double step
    for word in range(s.n_words):
        if rows[word]:
            for j in range(64):
                v[64 * word + j] = s.beta
    for k in range(s.n_active):
        step = s.beta * s.beta * h[k]
        if step > 0 and k < s.n_bits:
            s.kernels.add(rows, s.active + k * s.n_words, -step, v, s.n_words)
        elif step > 0:
            for word in range(s.n_words):
                if rows[word]:
                    x = s.graded + ((k - s.n_bits) * s.n_words + word) * 64
                    for j in range(64):
                        v[64 * word + j] -= step * x[j]


cdef void floors(const Search* s, Work* w, const uint64_t* rows, double lam, double* reached) noexcept nogil:
    """Values that the two prefix bounds cannot be below: those of the prefix of all rows of one sign.

    They need no v_i, for the sum of v_i is beta (n - beta h'b). A prefix bound is only worth its time if its floor
    would cut. Overwrites w.b.
    """
    cdef int sign, k
    cdef int64_t n
    cdef double q, v
    reached[0] = 0
    reached[1] = 0
    for sign in range(2):
        n = s.kernels.intersect(rows, s.signs + sign * s.n_words, w.part, s.n_words)
        if n == 0:
            continue
        q = s.kernels.sum(w.part, s.u, s.n_words)
        if n >= s.min_support:
            reached[0] = fmax(reached[0], lam * q * q / n)
        project(s, w, w.part)
        v = n
        for k in range(s.n_active):
            v -= s.beta * w.h[k] * w.b[k]
        reached[1] = fmax(reached[1], q * q / (s.beta * v) if v > 0 else INFINITY)


cdef double node_bound(const Search* s, Work* w, int order, double* lam) noexcept nogil:
    """Bound of rho over the proper supersets of the node at this depth; the costly forms only where they may help."""
    cdef const uint64_t* rows = w.rows + order * s.n_words
    cdef double penalty = s.penalty[order + 1], bound, by_rows
    cdef double top[2]
    cdef double reached[2]
    project(s, w, rows)
    lam[0] = node_lam(s, w.b)
    bound = cheap_bound(s, rows, lam[0])
    if hopeless(s, bound, penalty):
        return bound
    fill_h(s, w.b, w.h)
    floors(s, w, rows, lam[0], reached)
    if hopeless(s, reached[0], penalty):
        bound = fmin(bound, lam[0] * prefix_bound(rows, s.u, s.n_words, s.min_support))
    if s.n_active == 0 or hopeless(s, bound, penalty) or not hopeless(s, reached[1], penalty):
        return bound
    weigh_rows(s, rows, w.h, w.v)
    by_rows = cheap_row_bound(rows, s.u, w.v, s.n_words, TINY * s.beta, top)
    bound = fmin(bound, by_rows)
    if by_rows == INFINITY or hopeless(s, bound, penalty):
        return bound
    return fmin(bound, prefix_row_bound(rows, s.u, w.v, s.n_words, top))


# ---------------------------------------------------------------------------------------------------------------------
# The search


cdef void keep(const Search* s, Work* w, int order, double score, double rho, double q, double S) noexcept nogil:
    """Take the node at this depth if it is one of the best, and raise the threshold for all threads."""
    cdef Candidate one
    ascending(w.itemset, order, w.ordered)
    one.values[0], one.values[1], one.values[2], one.values[3] = score, rho, q, S
    one.size = order
    one.itemset = w.ordered
    one.rows = w.rows + order * s.n_words
    if take(&w.best, &one):
        raise_shared(s.threshold, required_score(&w.best, -INFINITY))


cdef void consider(const Search* s, Work* w, int order, int64_t n) noexcept nogil:
    """Evaluate the node at this depth, of n rows; lam of the depth above bounds its S from below."""
    cdef const uint64_t* rows = w.rows + order * s.n_words
    cdef double q = s.kernels.sum(rows, s.u, s.n_words)
    cdef double S, rho, score
    if n == s.n_rows or hopeless(s, q * q * w.lam[order - 1] / n, s.penalty[order]):
        return
    project(s, w, rows)
    if is_active(s, w.counts, n):
        return
    S = sparsity(s, w.b, n, w.nonzero)
    if S <= REDUNDANT * s.beta * n:
        return
    rho = q * q / S
    score = gain(rho) - s.penalty[order]
    if score > s.min_gain and score >= read_shared(s.threshold):
        keep(s, w, order, score, rho, q, S)


cdef inline int64_t enter(const Search* s, Work* w, int depth, int item) noexcept nogil:
    """Rows of the node at this depth with one item more, put one deeper; returns how many."""
    cdef uint64_t* rows = w.rows + depth * s.n_words
    w.itemset[depth] = item
    return s.kernels.intersect(rows, s.items + item * s.n_words, rows + s.n_words, s.n_words)


cdef int evaluate_children(const Search* s, Work* w, int depth, int64_t n_parent, int n_candidates) noexcept nogil:
    """Evaluate node + candidate for every candidate; keep the candidates that supersets may still take.

    Too few rows: so have all supersets. The parent's rows: any superset has the same rows without the item.
    """
    cdef int32_t* candidate = w.candidate + depth * s.n_items
    cdef int i, kept = 0
    cdef int64_t n
    for i in range(n_candidates):
        n = enter(s, w, depth, candidate[i])
        w.n_nodes += 1
        if n >= s.min_support and n < n_parent:
            consider(s, w, depth + 1, n)
            candidate[kept] = candidate[i]
            kept = kept + 1
    return kept


cdef int bound_children(const Search* s, Work* w, int depth, int n_candidates) noexcept nogil:
    """Drop the candidates no superset with which can count; sort the others by decreasing bound."""
    cdef int32_t* candidate = w.candidate + depth * s.n_items
    cdef double* bound = w.bound + depth * s.n_items
    cdef int i, k, item, kept = 0
    cdef double value, lam
    w.threshold[depth] = read_shared(s.threshold)
    for i in range(n_candidates):
        item = candidate[i]
        enter(s, w, depth, item)
        value = node_bound(s, w, depth + 1, &lam)
        if hopeless(s, value, s.penalty[depth + 2]):
            continue
        k = kept
        while k > 0 and bound[k - 1] < value:
            bound[k] = bound[k - 1]
            candidate[k] = candidate[k - 1]
            k = k - 1
        bound[k] = value
        candidate[k] = item
        kept = kept + 1
    return kept


cdef int open_node(const Search* s, Work* w, int depth, int64_t n, int n_candidates) noexcept nogil:
    """Evaluate the children of a node; returns how many of them, first in the list, are worth a visit."""
    n_candidates = evaluate_children(s, w, depth, n, n_candidates)
    return bound_children(s, w, depth, n_candidates) if depth + 1 < s.max_order else 0


cdef void visit_child(const Search* s, Work* w, int depth, int which, int n_candidates) noexcept nogil:
    """Search the supersets of node + candidate number `which` that take no earlier candidate."""
    cdef int32_t* candidate = w.candidate + depth * s.n_items
    cdef double* bound = w.bound + depth * s.n_items
    cdef double penalty = s.penalty[depth + 2]
    cdef int i, n_below = 0
    cdef int64_t n
    if hopeless(s, bound[which], penalty):
        return
    for i in range(which + 1, n_candidates):
        if hopeless(s, bound[i], penalty):
            break
        if s.variable[candidate[i]] != s.variable[candidate[which]]:
            candidate[s.n_items + n_below] = candidate[i]
            n_below = n_below + 1
    if n_below == 0:
        return
    n = enter(s, w, depth, candidate[which])
    if read_shared(s.threshold) > w.threshold[depth]:  # a closer bound may cut now
        if hopeless(s, node_bound(s, w, depth + 1, &w.lam[depth + 1]), penalty):
            return
    else:
        project(s, w, w.rows + (depth + 1) * s.n_words)
        w.lam[depth + 1] = node_lam(s, w.b)
    n_below = open_node(s, w, depth + 1, n, n_below)
    for i in range(n_below):
        visit_child(s, w, depth + 1, i, n_below)


cdef void consider_start(const Search* s, Work* w, const int32_t* itemset, int size) noexcept nogil:
    """Evaluate an itemset that is known to be good, so that the search starts with a high threshold."""
    cdef int depth
    cdef int64_t n = 0
    for depth in range(size):
        n = enter(s, w, depth, itemset[depth])
    w.n_nodes += 1
    if n >= s.min_support:
        consider(s, w, size, n)


cdef int open_root(const Search* s, Work* w) noexcept nogil:
    cdef double lam
    cdef int item
    w.n_nodes += 1
    if s.n_rows < s.min_support or hopeless(s, node_bound(s, w, 0, &lam), s.penalty[1]):
        return 0
    w.lam[0] = lam
    for item in range(s.n_items):
        w.candidate[item] = item
    return open_node(s, w, 0, s.n_rows, s.n_items)


cdef class Space:
    """The memory of `Work`, for each thread."""

    cdef Work* works
    cdef object values, sizes, found, found_rows, arrays
    cdef int n_threads

    def __dealloc__(self):
        free(self.works)

    def collect(self):
        """Return (values, sizes, itemsets, rows) of all that was found, and the number of nodes."""
        cdef int t
        cdef int64_t n_nodes = 0
        counts = []
        for t in range(self.n_threads):
            counts.append(self.works[t].best.n_found)
            n_nodes += self.works[t].n_nodes
        parts = [
            np.concatenate([part[t, :count] for t, count in enumerate(counts)])
            for part in (self.values, self.sizes, self.found, self.found_rows)
        ]
        return (*parts, n_nodes)


cdef Space make_space(const Search* s, int n_best, int n_threads):
    cdef Space space = Space()
    cdef int t, depths = s.max_order + 1
    space.n_threads = n_threads
    space.works = <Work*> calloc(n_threads, sizeof(Work))
    if space.works == NULL:
        raise MemoryError
    cdef uint64_t[:, :, ::1] rows = np.zeros((n_threads, depths, s.n_words), dtype=np.uint64)
    cdef int32_t[:, :, ::1] candidate = np.zeros((n_threads, depths, s.n_items), dtype=np.int32)
    cdef double[:, :, ::1] bound = np.zeros((n_threads, depths, s.n_items))
    cdef double[:, ::1] lam = np.full((n_threads, depths), s.lam), threshold = np.zeros((n_threads, depths))
    cdef int32_t[:, :, ::1] itemset = np.zeros((n_threads, 2, s.max_order), dtype=np.int32)
    cdef int32_t[:, ::1] counts = np.zeros((n_threads, s.n_bits + COUNT_B_PAD), dtype=np.int32)
    cdef double[:, ::1] b = np.zeros((n_threads, s.n_active + 1))
    cdef int32_t[:, ::1] nonzero = np.zeros((n_threads, s.n_active + 1), dtype=np.int32)
    cdef double[:, ::1] h = np.zeros((n_threads, s.n_active + 1)), v = np.zeros((n_threads, 64 * s.n_words))
    cdef uint64_t[:, ::1] part = np.zeros((n_threads, s.n_words), dtype=np.uint64)
    cdef double[:, :, ::1] values = np.zeros((n_threads, n_best, 4))
    cdef int32_t[:, ::1] sizes = np.zeros((n_threads, n_best), dtype=np.int32)
    cdef int32_t[:, :, ::1] found = np.zeros((n_threads, n_best, s.max_order), dtype=np.int32)
    cdef uint64_t[:, :, ::1] found_rows = np.zeros((n_threads, n_best, s.n_words), dtype=np.uint64)
    for t in range(n_threads):
        fill_rows(&rows[t, 0, 0], s.n_rows)
        space.works[t] = Work(
            &rows[t, 0, 0], &candidate[t, 0, 0], &bound[t, 0, 0], &lam[t, 0], &threshold[t, 0],
            &itemset[t, 0, 0], &itemset[t, 1, 0], &counts[t, 0], &b[t, 0], &nonzero[t, 0], &h[t, 0], &v[t, 0], &part[t, 0], 0, Best(
                0, n_best, s.max_order, s.n_words, &values[t, 0, 0], &sizes[t, 0], &found[t, 0, 0], &found_rows[t, 0, 0]
            ),
        )
    space.arrays = rows, candidate, bound, lam, threshold, itemset, counts, b, nonzero, h, v, part
    space.values, space.sizes = np.asarray(values), np.asarray(sizes)
    space.found, space.found_rows = np.asarray(found), np.asarray(found_rows)
    return space


cdef void fill_rows(uint64_t* rows, int64_t n_rows) noexcept nogil:
    cdef int64_t row
    for row in range(n_rows):
        rows[row // 64] |= <uint64_t> 1 << (row % 64)


cdef class ItemsetSearch:
    """One search problem: its arrays (see `Search`) and what to do with them.

    `u` is decreasing and zero past n_rows; `settings` is (n_rows, min_support, max_order) and `levels` (beta, lam,
    min_gain); `kernel` a number of KERNEL_NAMES.
    """

    cdef Search search
    cdef RowKernels kernels
    cdef double threshold
    cdef object arrays

    def __init__(
        self, const uint64_t[:, ::1] items, const int32_t[::1] variable, const uint64_t[:, ::1] active,
        const int32_t[::1] active_size, const double[:, ::1] graded, const double[::1] u,
        const double[:, ::1] u_squared, const uint64_t[:, ::1] signs, const double[:, ::1] sigma,
        const double[::1] inverse_alpha, const double[::1] penalty, settings, levels, int kernel,
    ):
        self.arrays = items, variable, active, active_size, graded, u, u_squared, signs, sigma, inverse_alpha, penalty
        n_rows, min_support, max_order = settings
        beta, lam, min_gain = levels
        find_row_kernels(kernel, &self.kernels)
        self.search = Search(
            self.kernels, items.shape[1], n_rows, min_support, <int>items.shape[0], <int>active_size.shape[0],
            <int>inverse_alpha.shape[0], max_order, &items[0, 0], &active[0, 0], &graded[0, 0], &variable[0],
            &active_size[0], &u[0], &u_squared[0, 0],
            &signs[0, 0], &sigma[0, 0], &inverse_alpha[0], &penalty[0], beta, lam, min_gain, &self.threshold,
        )

    def bounds(self, const int32_t[::1] itemset):
        """Return rows, Q, S and the bounds of rho over the supersets of an itemset of at most max_order items.

        The bounds are the cheap and the prefix form with min(lam, lam(I)), then with the v_i of the rows.
        """
        cdef Search* s = &self.search
        cdef Space space = make_space(s, 1, 1)
        cdef Work* w = &space.works[0]
        cdef int depth, order = <int>itemset.shape[0]
        cdef double lam, cheap, prefix = INFINITY
        cdef double top[2]
        cdef int64_t n = s.n_rows
        for depth in range(order):
            n = enter(s, w, depth, itemset[depth])
        cdef const uint64_t* rows = w.rows + order * s.n_words
        project(s, w, rows)
        lam = node_lam(s, w.b)
        fill_h(s, w.b, w.h)
        weigh_rows(s, rows, w.h, w.v)
        cheap = cheap_row_bound(rows, s.u, w.v, s.n_words, TINY * s.beta, top)
        if cheap < INFINITY:
            prefix = prefix_row_bound(rows, s.u, w.v, s.n_words, top)
        return (
            n, s.kernels.sum(rows, s.u, s.n_words), sparsity(s, w.b, n, w.nonzero),
            (cheap_bound(s, rows, lam), lam * prefix_bound(rows, s.u, s.n_words, s.min_support), cheap, prefix),
        )

    def run(self, const int32_t[:, ::1] start, const int32_t[::1] start_size, int n_best, int n_threads):
        """Return (values, sizes, itemsets, rows) of up to n_best itemsets per thread, in no order, and the node count."""
        cdef Search* s = &self.search
        cdef Space space = make_space(s, n_best, n_threads)
        cdef Work* works = space.works
        cdef int i, first, last, n_children
        self.threshold = -INFINITY
        with nogil:
            for i in range(start_size.shape[0]):
                consider_start(s, works, &start[i, 0], start_size[i])
            n_children = open_root(s, works)
            for i in range(1, n_threads):
                memcpy(works[i].candidate, works[0].candidate, n_children * sizeof(int32_t))
                memcpy(works[i].bound, works[0].bound, n_children * sizeof(double))
                works[i].lam[0] = works[0].lam[0]
                works[i].threshold[0] = works[0].threshold[0]
        for first in range(0, n_children, HEED * n_threads):
            last = min(first + HEED * n_threads, n_children)
            for i in prange(first, last, nogil=True, num_threads=n_threads, schedule="dynamic", chunksize=1):
                visit_child(s, &works[threadid()], 0, i, n_children)
            PyErr_CheckSignals()
        return space.collect()
