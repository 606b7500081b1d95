"""Loops behind effml.bayes.structure: counts over pairs of features within each class, reduced to sums of n log n.

Vocabulary. A *column* is one state of one feature. Of every feature one state, the *dropped* one, has no column: its
counts follow from the margins by subtraction. States that no row has are left out too; a feature with missing codes
has them as its last column. Features come in the caller's order: feature number f is row ``feature[f]`` of the codes.
``first[f]:first[f + 1]`` are the columns of feature f, ``stop[f]`` its first column that
is not a state (``first[f + 1]``, or one less when the last column holds the missing rows).

Rows are sorted by class. Margins of a class are laid out as [columns | padding | dropped state of each feature].
"""

from cython.parallel cimport prange, threadid
from libc.math cimport log
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

import numpy as np

cdef extern from "pair_counts.h" nogil:
    ctypedef void (*count_kernel)(const uint64_t*, int, const uint64_t*, int, int64_t, int64_t, int32_t*, int64_t)
    int COUNT_A_MAX
    int COUNT_B_PAD
    int N_KERNELS
    count_kernel find_kernel(int number)
    uint64_t equal_bits_u8(const uint8_t* codes, int n, uint8_t value)
    uint64_t equal_bits_u16(const uint16_t* codes, int n, uint16_t value)
    int lowest_bit(uint64_t bits)

ctypedef fused code_t:
    uint8_t
    uint16_t

ctypedef fused count_t:
    int32_t
    double

ctypedef fused id_t:
    uint16_t
    uint32_t

KERNEL_NAMES = ("portable", "popcnt", "avx2", "avx512")
COLUMN_PADDING = COUNT_B_PAD


def available_kernels():
    """Names of the popcount kernels this processor can run, slowest first."""
    return [KERNEL_NAMES[number] for number in range(N_KERNELS) if find_kernel(number) != NULL]


# ---------------------------------------------------------------------------------------------------------------------
# From counts to sums of n log n


cdef struct Layout:
    const int32_t* first
    const int32_t* stop
    int dropped        # index of the dropped state of feature 0 in a row of margins
    bint incomplete    # some feature has missing codes
    int n_features


cdef inline double xlogx(count_t x, const double* table) noexcept nogil:
    if count_t is int32_t:
        return table[x]
    else:
        return x * log(x) if x > 0 else 0.0


cdef inline bint has_missing(const Layout* layout, int f) noexcept nogil:
    return layout.stop[f] != layout.first[f + 1]


cdef void fill_layout(Layout* layout, const int32_t[::1] first, const int32_t[::1] stop) noexcept:
    cdef int f
    layout.first = &first[0]
    layout.stop = &stop[0]
    layout.n_features = <int>stop.shape[0]
    layout.dropped = first[layout.n_features] + COUNT_B_PAD
    layout.incomplete = False
    for f in range(layout.n_features):
        if has_missing(layout, f):
            layout.incomplete = True


cdef void add_cells(
    const count_t* row, count_t own, const double* table, const Layout* layout, int begin, int end, double* out,
) noexcept nogil:
    """out[g] += sum over the states b of g of n(a, b) log n(a, b), for one state a seen `own` times."""
    cdef int g, b
    cdef count_t rest
    cdef double total
    for g in range(begin, end):
        rest = own
        total = 0
        for b in range(layout.first[g], layout.stop[g]):
            rest = rest - row[b]
            total = total + xlogx(row[b], table)
        if has_missing(layout, g):
            rest = rest - row[layout.stop[g]]
        out[g] += total + xlogx(rest, table)


cdef void subtract_own_margin(
    const count_t* row, count_t own, const double* table, const Layout* layout, int f, int begin, int end, double* out,
) noexcept nogil:
    """Pairs with missing codes: n(a) log n(a) over the rows where g is present too."""
    cdef int g
    for g in range(begin, end):
        if has_missing(layout, g):
            out[g] -= xlogx(<count_t>(own - row[layout.stop[g]]), table)
        elif has_missing(layout, f):
            out[g] -= xlogx(own, table)


cdef void subtract_other_margin(
    const count_t* gone_row, count_t gone, const count_t* margin, count_t class_total, const double* table,
    const Layout* layout, int f, int begin, int end, double* out, double* n_present,
) noexcept nogil:
    """Pairs with missing codes: n(b) log n(b) over the rows where f is present (gone_row counts the others), and n."""
    cdef int g, b
    cdef count_t rest, present
    for g in range(begin, end):
        if not has_missing(layout, f) and not has_missing(layout, g):
            continue
        rest = gone
        present = class_total - gone
        for b in range(layout.first[g], layout.stop[g]):
            rest = rest - gone_row[b]
            out[g] -= xlogx(<count_t>(margin[b] - gone_row[b]), table)
        if has_missing(layout, g):
            b = layout.stop[g]
            rest = rest - gone_row[b]
            present = present - (margin[b] - gone_row[b])
        out[g] -= xlogx(<count_t>(margin[layout.dropped + g] - rest), table)
        out[g] += xlogx(present, table)
        n_present[g] += present


cdef struct Tally:
    # One feature f against features begin..end - 1 within one class.
    int f, begin, end
    double* out
    double* n_present


cdef inline Tally start_tally(int f, int begin, int end, double[:, ::1] out, double[:, ::1] n_present) noexcept nogil:
    cdef Tally tally = Tally(f, max(f + 1, begin), end, &out[f, 0], NULL)
    if n_present.shape[0] > 0:
        tally.n_present = &n_present[f, 0]
    return tally


cdef inline void clear(count_t* row, const Layout* layout, const Tally* tally) noexcept nogil:
    cdef int begin = layout.first[tally.begin]
    memset(row + begin, 0, (layout.first[tally.end] - begin) * sizeof(count_t))


cdef void tally_state(
    const count_t* row, int a, count_t* taken, const count_t* margin, count_t class_total, const double* table,
    const Layout* layout, const Tally* tally,
) noexcept nogil:
    """Take the counts of column a of f: a state, or the rows where f is missing."""
    cdef int b
    for b in range(layout.first[tally.begin], layout.first[tally.end]):
        taken[b] = taken[b] + row[b]
    if a >= layout.stop[tally.f]:
        subtract_other_margin(
            row, margin[a], margin, class_total, table, layout, tally.f, tally.begin, tally.end,
            tally.out, tally.n_present,
        )
        return
    add_cells(row, margin[a], table, layout, tally.begin, tally.end, tally.out)
    if layout.incomplete:
        subtract_own_margin(row, margin[a], table, layout, tally.f, tally.begin, tally.end, tally.out)


cdef void finish_tally(
    count_t* row, const count_t* taken, const count_t* zeros, const count_t* margin, count_t class_total,
    const double* table, const Layout* layout, const Tally* tally,
) noexcept nogil:
    """The dropped state of f has what its columns left."""
    cdef int b
    cdef count_t own = margin[layout.dropped + tally.f]
    for b in range(layout.first[tally.begin], layout.first[tally.end]):
        row[b] = margin[b] - taken[b]
    add_cells(row, own, table, layout, tally.begin, tally.end, tally.out)
    if layout.incomplete:
        subtract_own_margin(row, own, table, layout, tally.f, tally.begin, tally.end, tally.out)
        if not has_missing(layout, tally.f):
            subtract_other_margin(
                zeros, <count_t>0, margin, class_total, table, layout, tally.f, tally.begin, tally.end,
                tally.out, tally.n_present,
            )


# ---------------------------------------------------------------------------------------------------------------------
# Kernel 1: bit columns


cdef inline int64_t column_stride(int64_t n) noexcept nogil:
    return (n + 511) // 512 * 8


cdef void set_bits(
    const code_t[:, ::1] columns, Py_ssize_t f, int64_t begin, int64_t end, const int32_t* state_of_column,
    int first, int last, uint64_t* bits,
) noexcept nogil:
    """The bit columns of one feature within one class: rows begin..end - 1."""
    cdef int64_t word, stride = column_stride(end - begin)
    cdef int column, length
    cdef const code_t* codes
    for column in range(first, last):
        for word in range(stride):
            length = <int>min(64, end - begin - 64 * word)
            if length <= 0:
                bits[column * stride + word] = 0
                continue
            codes = &columns[f, begin + 64 * word]
            if code_t is uint8_t:
                bits[column * stride + word] = equal_bits_u8(codes, length, <uint8_t>state_of_column[column])
            else:
                bits[column * stride + word] = equal_bits_u16(codes, length, <uint16_t>state_of_column[column])


cdef void popcount_feature(
    count_kernel count, const uint64_t* bits, int64_t n_words, int64_t stride, int32_t* scratch, int64_t width,
    const int32_t* margin, int32_t class_total, const double* table, const Layout* layout, const Tally* tally,
) noexcept nogil:
    cdef int32_t* taken = scratch + COUNT_A_MAX * width
    cdef const int32_t* zeros = taken + width
    cdef int k, n_a, a = layout.first[tally.f]
    cdef int b = layout.first[tally.begin]
    cdef int n_b = layout.first[tally.end] - b
    clear(taken, layout, tally)
    while a < layout.first[tally.f + 1]:
        n_a = min(COUNT_A_MAX, layout.first[tally.f + 1] - a)
        count(bits + a * stride, n_a, bits + b * stride, n_b, n_words, stride, scratch + b, width)
        for k in range(n_a):
            tally_state(scratch + k * width, a + k, taken, margin, class_total, table, layout, tally)
        a = a + n_a
    finish_tally(scratch, taken, zeros, margin, class_total, table, layout, tally)


cdef void popcount_task(
    const int32_t* task, count_kernel count, const uint64_t* bits, const int64_t[::1] bit_start,
    const int64_t[::1] class_start, const int32_t[:, ::1] margins, int32_t* scratch, const double* table,
    const Layout* layout, double[:, ::1] out, double[:, ::1] n_present,
) noexcept nogil:
    """Features task[0]..task[1] - 1 against task[2]..task[3] - 1: these columns of a class stay in cache meanwhile."""
    cdef Py_ssize_t c
    cdef int f
    cdef int64_t n, n_words
    cdef Tally tally
    for c in range(margins.shape[0]):
        n = class_start[c + 1] - class_start[c]
        n_words = (n + 63) // 64
        for f in range(task[0], task[1]):
            tally = start_tally(f, task[2], task[3], out, n_present)
            if tally.begin < tally.end and n > 0:
                popcount_feature(
                    count, bits + bit_start[c], n_words, column_stride(n), scratch, margins.shape[1], &margins[c, 0],
                    <int32_t>n, table, layout, &tally,
                )


def popcount_pairs(
    const code_t[:, ::1] columns, const int32_t[::1] feature, const int64_t[::1] class_start,
    const int32_t[::1] state_of_column, const int32_t[::1] first, const int32_t[::1] stop,
    const int32_t[:, ::1] margins, const double[::1] table, const int32_t[:, ::1] tasks, double[:, ::1] out,
    double[:, ::1] n_present, int kernel, int n_threads,
):
    """Add to out[f, g], f < g, the sums of n log n over the classes given, by AND and popcount.

    tasks (f_begin, f_end, g_begin, g_end) name blocks of pairs; a pair is in one task at most.
    """
    cdef count_kernel count = find_kernel(kernel)
    cdef Py_ssize_t c, t, k, n_classes = margins.shape[0], n_features = np.max(tasks[:, 3], initial=0)
    cdef int64_t n_columns = first[n_features] + COUNT_B_PAD
    cdef Layout layout
    fill_layout(&layout, first, stop)
    cdef int64_t[::1] bit_start = np.zeros(n_classes + 1, dtype=np.int64)
    for c in range(n_classes):
        bit_start[c + 1] = bit_start[c] + n_columns * column_stride(class_start[c + 1] - class_start[c])
    cdef uint64_t[::1] bits = np.empty(bit_start[n_classes] + 1, dtype=np.uint64)
    cdef int32_t[:, ::1] scratch = np.zeros((n_threads, (COUNT_A_MAX + 2) * margins.shape[1]), dtype=np.int32)
    with nogil:
        for k in prange(n_classes * n_features, num_threads=n_threads, schedule="static"):
            set_bits(
                columns, feature[k % n_features], class_start[k // n_features], class_start[k // n_features + 1],
                &state_of_column[0], first[k % n_features], first[k % n_features + 1], &bits[bit_start[k // n_features]]
            )
        for t in prange(tasks.shape[0], num_threads=n_threads, schedule="dynamic"):
            popcount_task(
                &tasks[t, 0], count, &bits[0], bit_start, class_start, margins, &scratch[threadid(), 0], &table[0],
                &layout, out, n_present,
            )


# ---------------------------------------------------------------------------------------------------------------------
# Kernel 2: rows as lists of their columns


cdef struct RowLists:
    # Within one class: the columns of row r at ids[row_start[r]:row_start[r + 1]], ascending; the rows of column a at
    # group_row[group_start[a]:group_start[a + 1]], with the position in ids where their later columns begin.
    int64_t* row_start
    int64_t* cursor
    int64_t* group_start
    int64_t* group_cursor
    int64_t* group_from
    int32_t* group_row
    const int64_t* cells_start  # one entry a class: where its groups start when several classes are stored

cdef inline uint64_t other_bits(const code_t* codes, int n, int value) noexcept nogil:
    """Bit k: codes[k] != value."""
    cdef uint64_t all_rows = ~<uint64_t>0 >> (64 - n)
    if code_t is uint8_t:
        return ~equal_bits_u8(codes, n, <uint8_t>value) & all_rows
    else:
        return ~equal_bits_u16(codes, n, <uint16_t>value) & all_rows


cdef void measure_rows(
    const code_t[:, ::1] columns, const int32_t[::1] feature, int64_t offset, int64_t n,
    const int32_t[::1] dropped_state, int n_skipped, int64_t* row_start,
) noexcept nogil:
    cdef Py_ssize_t f, r
    cdef int dropped
    cdef const code_t* codes
    memset(row_start, 0, (n + 1) * sizeof(int64_t))
    for f in range(n_skipped, columns.shape[0]):
        codes = &columns[feature[f], offset]
        dropped = dropped_state[f]
        for r in range(n):
            row_start[r + 1] += codes[r] != dropped
    for r in range(n):
        row_start[r + 1] += row_start[r]


cdef void list_rows(
    const code_t[:, ::1] columns, const int32_t[::1] feature, int64_t offset, int64_t n,
    const int32_t[::1] dropped_state, const int32_t[::1] state_start, const int32_t[::1] column_of_state,
    int n_skipped, RowLists lists, id_t* ids,
) noexcept nogil:
    """Fill the lists of one class; the first n_skipped features get groups, but no place in the rows."""
    cdef Py_ssize_t f
    cdef int64_t r, word, g
    cdef int column
    cdef uint64_t bits
    cdef const code_t* codes
    measure_rows(columns, feature, offset, n, dropped_state, n_skipped, lists.row_start)
    for r in range(n):
        lists.cursor[r] = lists.row_start[r]
    for f in range(columns.shape[0]):
        codes = &columns[feature[f], offset]
        for word in range(0, n, 64):
            bits = other_bits(codes + word, <int>min(64, n - word), dropped_state[f])
            while bits:
                r = word + lowest_bit(bits)
                bits &= bits - 1
                column = column_of_state[state_start[f] + codes[r]]
                if f >= n_skipped:
                    ids[lists.cursor[r]] = <id_t>column
                    lists.cursor[r] += 1
                g = lists.group_cursor[column]
                lists.group_cursor[column] = g + 1
                lists.group_row[g] = <int32_t>r
                lists.group_from[g] = lists.cursor[r]


cdef void rows_feature(
    const RowLists* lists, const id_t* ids, const double* weights, count_t* row, int64_t width, const count_t* margin,
    count_t class_total, const double* table, const Layout* layout, const Tally* tally,
) noexcept nogil:
    cdef count_t* taken = row + width
    cdef const count_t* zeros = taken + width
    cdef int a
    cdef int64_t g, k, stop
    cdef double weight
    clear(taken, layout, tally)
    for a in range(layout.first[tally.f], layout.first[tally.f + 1]):
        clear(row, layout, tally)
        for g in range(lists.group_start[a], lists.group_start[a + 1]):
            k = lists.group_from[g]
            stop = lists.row_start[lists.group_row[g] + 1]
            if count_t is int32_t:
                while k + 4 <= stop:
                    row[ids[k]] += 1
                    row[ids[k + 1]] += 1
                    row[ids[k + 2]] += 1
                    row[ids[k + 3]] += 1
                    k = k + 4
                while k < stop:
                    row[ids[k]] += 1
                    k = k + 1
            else:
                weight = weights[lists.group_row[g]]
                while k < stop:
                    row[ids[k]] += weight
                    k = k + 1
        tally_state(row, a, taken, margin, class_total, table, layout, tally)
    finish_tally(row, taken, zeros, margin, class_total, table, layout, tally)


cdef void rows_task(
    int f_begin, int f_end, int n_skipped, const RowLists* all_lists, const id_t* ids, const int64_t[::1] ids_start,
    const int64_t[::1] class_start, const double[::1] weights, const count_t[:, ::1] margins,
    const double[::1] class_totals, count_t* scratch, const double* table, const Layout* layout,
    double[:, ::1] out, double[:, ::1] n_present,
) noexcept nogil:
    """Features f_begin..f_end - 1 against all later ones from n_skipped on, class by class."""
    cdef Py_ssize_t c
    cdef int f
    cdef Tally tally
    cdef RowLists lists
    for c in range(margins.shape[0]):
        lists = lists_of_class(all_lists, c, class_start, layout)
        for f in range(f_begin, f_end):
            tally = start_tally(f, n_skipped, layout.n_features, out, n_present)
            if tally.begin < tally.end and class_start[c] < class_start[c + 1]:
                rows_feature(
                    &lists, ids + ids_start[c], &weights[0] + class_start[c], scratch, margins.shape[1],
                    &margins[c, 0], <count_t>class_totals[c], table, layout, &tally,
                )


cdef inline RowLists lists_of_class(
    const RowLists* lists, Py_ssize_t c, const int64_t[::1] class_start, const Layout* layout
) noexcept nogil:
    """The lists of all classes lie one after the other; positions in group_* and ids count from the class's own."""
    cdef int64_t rows = class_start[c] - class_start[0] + c
    cdef int64_t groups = c * (layout.first[layout.n_features] + 1)
    cdef int64_t cells = lists.cells_start[c]
    return RowLists(
        lists.row_start + rows, lists.cursor + rows, lists.group_start + groups, lists.group_cursor + groups,
        lists.group_from + cells, lists.group_row + cells, lists.cells_start,
    )


def row_pairs(
    const code_t[:, ::1] columns, const int32_t[::1] feature, const int64_t[::1] class_start,
    const int32_t[::1] dropped_state, const int32_t[::1] state_start, const int32_t[::1] column_of_state,
    const int32_t[::1] first, const int32_t[::1] stop, const int32_t[:, ::1] row_counts, const count_t[:, ::1] margins,
    const double[::1] class_totals, const double[::1] weights, const double[::1] table, int n_skipped,
    id_t[::1] ids, double[:, ::1] out, double[:, ::1] n_present, int features_per_task, int n_threads,
):
    """Add to out[f, g] the sums of n log n of all pairs f < g, g >= n_skipped, over the classes given, by row lists.

    row_counts are the margins in rows; margins the same, or in weights. ids is work space for the entries of all rows.
    """
    cdef int n_features = <int>feature.shape[0], n_columns = first[n_features]
    cdef Py_ssize_t c, t, a, n_classes = margins.shape[0]
    cdef int64_t n_rows = class_start[n_classes] - class_start[0] + n_classes
    cells = np.sum(row_counts[:, :n_columns], axis=1, dtype=np.int64)
    listed = np.sum(row_counts[:, first[n_skipped] : n_columns], axis=1, dtype=np.int64)
    cdef int64_t[::1] cells_start = np.concatenate(([0], np.cumsum(cells)))
    cdef int64_t[::1] ids_start = np.concatenate(([0], np.cumsum(listed)))
    cdef int64_t[::1] row_start = np.empty(n_rows, dtype=np.int64), cursor = np.empty(n_rows, dtype=np.int64)
    group_sizes = np.concatenate((np.zeros((n_classes, 1), dtype=np.int64), row_counts[:, :n_columns]), axis=1)
    cdef int64_t[:, ::1] group_start = np.cumsum(group_sizes, axis=1), group_cursor = np.copy(group_start)
    cdef int64_t[::1] group_from = np.empty(cells_start[n_classes] + 1, dtype=np.int64)
    cdef int32_t[::1] group_row = np.empty(cells_start[n_classes] + 1, dtype=np.int32)
    cdef count_t[:, ::1] scratch = np.zeros((n_threads, 3 * margins.shape[1]), dtype=np.asarray(margins).dtype)
    cdef Layout layout
    cdef RowLists lists = RowLists(
        &row_start[0], &cursor[0], &group_start[0, 0], &group_cursor[0, 0], &group_from[0], &group_row[0],
        &cells_start[0],
    )
    fill_layout(&layout, first, stop)
    with nogil:
        for c in prange(n_classes, num_threads=n_threads, schedule="dynamic"):
            list_rows(
                columns, feature, class_start[c], class_start[c + 1] - class_start[c], dropped_state, state_start,
                column_of_state, n_skipped, lists_of_class(&lists, c, class_start, &layout), &ids[ids_start[c]],
            )
        for t in prange((n_features + features_per_task - 1) // features_per_task, num_threads=n_threads,
                        schedule="dynamic"):
            rows_task(
                <int>t * features_per_task, min(n_features, <int>(t + 1) * features_per_task), n_skipped, &lists,
                &ids[0], ids_start, class_start, weights, margins, class_totals, &scratch[threadid(), 0], &table[0],
                &layout, out, n_present,
            )
