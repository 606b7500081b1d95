"""Exact interventional Shapley values of trees: one walk a (row, tree) with all background rows at once.

Where the row and some background rows part, the player of that split decides: with it present the way of the row is
taken, else that of the background rows. A leaf of value v behind `a` players that must be present and `b` that must be
absent gives each of the former v * present[a, b] and each of the latter -v * absent[a, b].
"""

from libc.stdint cimport int8_t, int64_t, uint8_t

cdef enum:
    OPEN = 0
    PRESENT = 1
    ABSENT = 2

cdef struct Walk:
    const int64_t *feature
    const double *threshold
    const int64_t *children
    const uint8_t *missing_right
    const double *value
    const int64_t *player
    const double *row
    const double *background   # one line a column
    Py_ssize_t n_background
    int64_t *order             # background rows, partitioned on the way down
    int8_t *state              # of each player
    int64_t *decided           # players that are not open
    Py_ssize_t n_decided
    Py_ssize_t n_present
    Py_ssize_t n_players
    Py_ssize_t n_outputs
    Py_ssize_t first           # outputs that the tree adds to
    Py_ssize_t last
    const double *present      # weights, each (n_weights, n_weights)
    const double *absent
    const double *both_present
    const double *both_absent
    const double *mixed
    Py_ssize_t n_weights
    double *phi                # (n_players, n_outputs) of the row
    double *pairs              # (n_players, n_players, n_outputs) of the row, or NULL


cdef inline bint goes_right(double value, double threshold, bint missing_right) noexcept nogil:
    return value > threshold if value == value else missing_right


cdef Py_ssize_t partition(Walk *walk, Py_ssize_t split, Py_ssize_t begin, Py_ssize_t end, bint side) noexcept nogil:
    """Move the background rows that go to `side` to the front; return where the others begin."""
    cdef const double *column = walk.background + walk.feature[split] * walk.n_background
    cdef double threshold = walk.threshold[split]
    cdef bint missing_right = walk.missing_right[split]
    cdef int64_t b
    while begin < end:
        b = walk.order[begin]
        if goes_right(column[b], threshold, missing_right) == side:
            begin += 1
        else:
            end -= 1
            walk.order[begin] = walk.order[end]
            walk.order[end] = b
    return begin


cdef void add_leaf(Walk *walk, Py_ssize_t leaf, double count) noexcept nogil:
    cdef Py_ssize_t i, j, k, p, q
    cdef Py_ssize_t weight = walk.n_present * walk.n_weights + walk.n_decided - walk.n_present
    cdef const double *value = walk.value + leaf * walk.n_outputs
    cdef double present = count * walk.present[weight], absent = -count * walk.absent[weight], share
    cdef double *target
    for i in range(walk.n_decided):
        p = walk.decided[i]
        share = present if walk.state[p] == PRESENT else absent
        target = walk.phi + p * walk.n_outputs
        for k in range(walk.first, walk.last):
            target[k] += share * value[k]
    if walk.pairs == NULL:
        return
    for i in range(walk.n_decided):
        p = walk.decided[i]
        for j in range(walk.n_decided):
            q = walk.decided[j]
            if i == j:
                continue
            if walk.state[p] != walk.state[q]:
                share = -count * walk.mixed[weight]
            elif walk.state[p] == PRESENT:
                share = count * walk.both_present[weight]
            else:
                share = count * walk.both_absent[weight]
            target = walk.pairs + (p * walk.n_players + q) * walk.n_outputs
            for k in range(walk.first, walk.last):
                target[k] += share * value[k]


cdef void visit(Walk *walk, int64_t node, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t middle, player
    cdef bint side
    while begin < end:
        if node < 0:
            if walk.n_decided:
                add_leaf(walk, ~node, <double> (end - begin))
            return
        player = walk.player[walk.feature[node]]
        side = goes_right(walk.row[walk.feature[node]], walk.threshold[node], walk.missing_right[node])
        if walk.state[player] == PRESENT:
            node = walk.children[2 * node + side]
            continue
        middle = partition(walk, node, begin, end, side)
        if walk.state[player] == ABSENT:
            visit(walk, walk.children[2 * node + side], begin, middle)
            node, begin = walk.children[2 * node + 1 - side], middle
            continue
        if middle < end:
            walk.decided[walk.n_decided] = player
            walk.n_decided += 1
            walk.state[player] = PRESENT
            walk.n_present += 1
            visit(walk, walk.children[2 * node + side], middle, end)
            walk.n_present -= 1
            walk.state[player] = ABSENT
            visit(walk, walk.children[2 * node + 1 - side], middle, end)
            walk.state[player] = OPEN
            walk.n_decided -= 1
        node, end = walk.children[2 * node + side], middle


def tree_shapley(
    const int64_t[::1] feature, const double[::1] threshold, const int64_t[:, ::1] children,
    const uint8_t[::1] missing_right, const int64_t[::1] roots, const double[:, ::1] value,
    const int64_t[:, ::1] outputs, const int64_t[::1] player, const double[:, ::1] rows,
    const double[:, ::1] background, const double[:, :, ::1] weights, int64_t[::1] order, int8_t[::1] state,
    int64_t[::1] decided, double[:, :, ::1] phi, double[:, :, :, ::1] pairs,
):
    """Add to phi (n_rows, n_players, n_outputs) and pairs (n_rows, n_players, n_players, n_outputs), or no rows, sums
    over the background.

    Trees as in effml._trees.Trees with at least one split in all; `outputs` (n_trees, 2) are the first output that a
    tree adds to and the one after its last; `background` holds one line a column; `weights` (5, m, m) are those of
    present and absent players, of pairs present, absent and mixed, by numbers of present and absent players; `order`
    is 0, 1, ... over the background, `state` zeros over the players, `decided` room for as many.
    """
    cdef Py_ssize_t r, t
    cdef Walk walk
    walk.feature, walk.threshold, walk.children = &feature[0], &threshold[0], &children[0, 0]
    walk.missing_right, walk.value, walk.player = &missing_right[0], &value[0, 0], &player[0]
    walk.background, walk.n_background = &background[0, 0], background.shape[1]
    walk.order, walk.state, walk.decided = &order[0], &state[0], &decided[0]
    walk.n_decided, walk.n_present = 0, 0
    walk.n_players, walk.n_outputs = phi.shape[1], phi.shape[2]
    walk.n_weights = weights.shape[1]
    walk.present, walk.absent, walk.both_present = &weights[0, 0, 0], &weights[1, 0, 0], &weights[2, 0, 0]
    walk.both_absent, walk.mixed = &weights[3, 0, 0], &weights[4, 0, 0]
    with nogil:
        for r in range(rows.shape[0]):
            walk.row = &rows[r, 0]
            walk.phi = &phi[r, 0, 0]
            walk.pairs = &pairs[r, 0, 0, 0] if pairs.shape[0] else NULL
            for t in range(roots.shape[0]):
                walk.first, walk.last = outputs[t, 0], outputs[t, 1]
                visit(&walk, roots[t], 0, walk.n_background)
