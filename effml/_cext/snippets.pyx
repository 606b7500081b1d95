"""Loops of decision snippets: mining the patterns of one size more, and the exits that rows take.

A pattern is (label, left, right): the label of its root and the numbers of the patterns below it, -1 for none.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t


def count_candidates(
    const int32_t[::1] label, const int64_t[:, ::1] children, const int64_t[:, ::1] first, int size, int64_t[::1] out
):
    """out[v] = number of patterns with `size` splits and root v whose parts are all known.

    The known patterns of size a with root v are first[a, v] .. first[a, v + 1]; label[v] < 0: v takes no part.
    """
    cdef Py_ssize_t v, a
    cdef int64_t total
    with nogil:
        for v in range(label.shape[0]):
            total = 0
            if takes_part(label, first, size, v):
                for a in range(size):
                    total += n_below(first, children[v, 0], a) * n_below(first, children[v, 1], size - 1 - a)
            out[v] = total


cdef inline bint takes_part(
    const int32_t[::1] label, const int64_t[:, ::1] first, int size, Py_ssize_t v
) noexcept nogil:
    return label[v] >= 0 and (size == 1 or first[1, v] < first[1, v + 1])


cdef inline int64_t n_below(const int64_t[:, ::1] first, int64_t child, Py_ssize_t size) noexcept nogil:
    if size == 0:
        return 1
    return first[size, child + 1] - first[size, child] if child >= 0 else 0


def grow(
    const int32_t[::1] label, const int32_t[::1] tree, const int64_t[:, ::1] children, const int64_t[:, ::1] first,
    const int32_t[::1] known, int size, int32_t[::1] table, int32_t[::1] last_tree, int32_t[:, ::1] patterns,
    int32_t[::1] support, int32_t[::1] occurrences,
):
    """Number the candidates of `count_candidates`, equal ones alike, in the order in which they are met.

    Fills occurrences (candidates of split 0, of split 1, ...) with numbers, patterns[number] = (label, left, right)
    and support[number] = number of trees; returns how many there are. `table` is an open hash table, a power of two
    long and filled with -1; splits of one tree are contiguous, last_tree is scratch.
    """
    cdef Py_ssize_t v, a, b, i, j, n_left, n_right, begin_left, begin_right, n = 0
    cdef int32_t left, right, number, n_patterns = 0
    cdef uint64_t slot, mask = table.shape[0] - 1
    with nogil:
        for v in range(label.shape[0]):
            if not takes_part(label, first, size, v):
                continue
            for a in range(size):
                b = size - 1 - a
                n_left = n_below(first, children[v, 0], a)
                n_right = n_below(first, children[v, 1], b)
                if n_left == 0 or n_right == 0:
                    continue
                begin_left = first[a, children[v, 0]] if a else 0
                begin_right = first[b, children[v, 1]] if b else 0
                for i in range(n_left):
                    left = known[begin_left + i] if a else -1
                    for j in range(n_right):
                        right = known[begin_right + j] if b else -1
                        slot = mixed(label[v], left, right) & mask
                        while True:
                            number = table[slot]
                            if number < 0:
                                number = n_patterns
                                table[slot] = number
                                patterns[number, 0] = label[v]
                                patterns[number, 1] = left
                                patterns[number, 2] = right
                                support[number] = 0
                                last_tree[number] = -1
                                n_patterns = n_patterns + 1
                                break
                            if (
                                patterns[number, 0] == label[v] and patterns[number, 1] == left
                                and patterns[number, 2] == right
                            ):
                                break
                            slot = (slot + 1) & mask
                        if last_tree[number] != tree[v]:
                            last_tree[number] = tree[v]
                            support[number] += 1
                        occurrences[n] = number
                        n = n + 1
    return n_patterns


cdef inline uint64_t mixed(int32_t label, int32_t left, int32_t right) noexcept nogil:
    cdef uint64_t h = <uint64_t> label * 0x9E3779B97F4A7C15ULL
    h = (h ^ (h >> 29) ^ <uint64_t> (left + 1)) * 0xBF58476D1CE4E5B9ULL
    h = (h ^ (h >> 32) ^ <uint64_t> (right + 1)) * 0x94D049BB133111EBULL
    return h ^ (h >> 31)


def exit_codes(
    const float[:, ::1] X, const int64_t[::1] feature, const float[::1] threshold, const uint8_t[::1] missing_right,
    const int64_t[::1] test, const int64_t[:, ::1] children, const int64_t[::1] split_start, uint64_t[:, ::1] left,
    uint8_t[:, ::1] out,
):
    """out[row, s] = number of the exit that a row takes in snippet s, which has splits split_start[s] onwards.

    Split i asks test[i], a row of the distinct tests (feature, threshold, missing_right). Sixty-four rows are walked
    at once, one bit a row; left (n_threads, n_tests) is scratch and its length the number of threads.
    """
    cdef Py_ssize_t n_rows = X.shape[0], block
    cdef int n_threads = left.shape[0]
    for block in prange((n_rows + 63) // 64, nogil=True, num_threads=n_threads, schedule="static"):
        test_rows(X, feature, threshold, missing_right, 64 * block, min(n_rows, 64 * block + 64), &left[threadid(), 0])
        walk_rows(test, children, split_start, &left[threadid(), 0], 64 * block, min(n_rows, 64 * block + 64), out)


cdef void test_rows(
    const float[:, ::1] X, const int64_t[::1] feature, const float[::1] threshold, const uint8_t[::1] missing_right,
    Py_ssize_t begin, Py_ssize_t end, uint64_t* left,
) noexcept nogil:
    cdef Py_ssize_t u, r
    cdef int64_t loaded = -1
    cdef float column[64]
    cdef float t
    cdef uint64_t bits
    for u in range(feature.shape[0]):
        if feature[u] != loaded:
            loaded = feature[u]
            for r in range(end - begin):
                column[r] = X[begin + r, loaded]
        t = threshold[u]
        bits = 0
        if missing_right[u]:
            for r in range(end - begin):
                bits |= <uint64_t> (column[r] <= t) << r
        else:
            for r in range(end - begin):
                bits |= <uint64_t> (not column[r] > t) << r
        left[u] = bits


cdef void walk_rows(
    const int64_t[::1] test, const int64_t[:, ::1] children, const int64_t[::1] split_start, const uint64_t* left,
    Py_ssize_t begin, Py_ssize_t end, uint8_t[:, ::1] out,
) noexcept nogil:
    # plane[j] holds bit j of every row's exit number. A tree has at most 255 splits, so 8 planes are enough.
    cdef Py_ssize_t s, i, r, j, first, n_splits
    cdef int64_t child, exit_
    cdef uint64_t here[256]
    cdef uint64_t plane[8]
    cdef uint64_t part, code
    cdef int side
    for s in range(split_start.shape[0] - 1):
        first = split_start[s]
        n_splits = split_start[s + 1] - first
        for j in range(8):
            plane[j] = 0
        here[0] = ~<uint64_t> 0
        for i in range(n_splits):
            for side in range(2):
                part = here[i] & (~left[test[first + i]] if side else left[test[first + i]])
                child = children[first + i, side]
                if child >= 0:
                    here[child - first] = part
                    continue
                exit_ = ~child - (first + s)  # every tree before this one has one leaf more than splits
                for j in range(8):
                    if exit_ >> j & 1:
                        plane[j] |= part
        if n_splits == 1:
            for r in range(end - begin):
                out[begin + r, s] = plane[0] >> r & 1
        elif n_splits < 8:
            for r in range(end - begin):
                out[begin + r, s] = (plane[0] >> r & 1) | (plane[1] >> r & 1) << 1 | (plane[2] >> r & 1) << 2
        else:
            for r in range(end - begin):
                code = 0
                for j in range(8):
                    code |= (plane[j] >> r & 1) << j
                out[begin + r, s] = <uint8_t> code


def count_shown(const uint8_t[:, ::1] codes, const uint8_t[::1] n_columns, int64_t[::1] out, int n_threads):
    """out[row] = number of snippets whose exit has a one-hot column: exits 0 .. n_columns[s] - 1 have one."""
    cdef Py_ssize_t row, s
    cdef int64_t shown
    for row in prange(codes.shape[0], nogil=True, num_threads=n_threads, schedule="static"):
        shown = 0
        for s in range(codes.shape[1]):
            shown = shown + (codes[row, s] < n_columns[s])
        out[row] = shown


def fill_sparse(
    const uint8_t[:, ::1] codes, const uint8_t[::1] n_columns, const int64_t[::1] first, const int64_t[::1] begin,
    int32_t[::1] columns, int n_threads,
):
    """columns[begin[row]:] = the columns that hold 1 in a row, ascending; those of snippet s start at first[s]."""
    cdef Py_ssize_t row, s
    cdef int64_t at
    for row in prange(codes.shape[0], nogil=True, num_threads=n_threads, schedule="static"):
        at = begin[row]
        for s in range(codes.shape[1]):
            if codes[row, s] < n_columns[s]:
                columns[at] = <int32_t> (first[s] + codes[row, s])
                at = at + 1


ctypedef fused number_t:
    uint8_t
    float
    double


def fill_dense(
    const uint8_t[:, ::1] codes, const uint8_t[::1] n_columns, const int64_t[::1] first, number_t[:, ::1] out,
    int n_threads,
):
    """Set the same columns of `out`, which comes zeroed, to 1."""
    cdef Py_ssize_t row, s
    for row in prange(codes.shape[0], nogil=True, num_threads=n_threads, schedule="static"):
        for s in range(codes.shape[1]):
            if codes[row, s] < n_columns[s]:
                out[row, first[s] + codes[row, s]] = 1


def sum_values(
    const uint8_t[:, :] codes, const int64_t[::1] first, const int32_t[:, ::1] values, int64_t[:, ::1] out,
    int n_threads,
):
    """out[i, :] += values[first[j] + codes[i, j], :] for every snippet j."""
    cdef Py_ssize_t i, j, k, row
    for i in prange(codes.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        for j in range(codes.shape[1]):
            row = first[j] + codes[i, j]
            for k in range(out.shape[1]):
                out[i, k] += values[row, k]
