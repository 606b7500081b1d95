"""What itemset_search.pyx takes from its C headers: loops over rows, bounds, the list of the best; and its own types."""

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef extern from "itemset_search.h" nogil:
    ctypedef int64_t (*intersect_kernel)(const uint64_t*, const uint64_t*, uint64_t*, int64_t)
    ctypedef double (*sum_kernel)(const uint64_t*, const double*, int64_t)
    ctypedef void (*add_kernel)(const uint64_t*, const uint64_t*, double, double*, int64_t)
    ctypedef void (*count_kernel)(const uint64_t*, int, const uint64_t*, int, int64_t, int64_t, int32_t*, int64_t)
    ctypedef struct RowKernels:
        intersect_kernel intersect
        sum_kernel sum
        add_kernel add
        count_kernel count
    int COUNT_B_PAD
    int N_ROW_KERNELS
    void fill_lanes()
    int find_row_kernels(int number, RowKernels* kernels)
    double read_shared(const double* shared)
    void raise_shared(double* shared, double value)

cdef extern from "itemset_bounds.h" nogil:
    double prefix_bound(const uint64_t* rows, const double* u, int64_t n_words, int64_t shortest)
    double cheap_row_bound(
        const uint64_t* rows, const double* u, const double* v, int64_t n_words, double least, double* top)
    double prefix_row_bound(
        const uint64_t* rows, const double* u, const double* v, int64_t n_words, const double* top)

cdef extern from "itemset_best.h" nogil:
    ctypedef struct Best:
        int n_found, n_best, max_order
        int64_t n_words
        double* values
        int32_t* sizes
        int32_t* itemsets
        uint64_t* rows
    ctypedef struct Candidate:
        double values[4]
        int32_t size
        const int32_t* itemset
        const uint64_t* rows
    int take(Best* best, const Candidate* one)
    double required_score(const Best* best, double unless_full)
    void ascending(const int32_t* itemset, int size, int32_t* out)


cdef struct Search:
    RowKernels kernels
    int64_t n_words, n_rows, min_support
    int n_items, n_bits, n_active, max_order  # the active columns: n_bits of bits first, then graded ones
    const uint64_t* items         # (n_items, n_words)
    const uint64_t* active        # (n_bits + COUNT_B_PAD, n_words)
    const double* graded          # (n_active - n_bits, 64 n_words) values from 0 to 1, zero past n_rows
    const int32_t* variable       # (n_items,)
    const int32_t* active_size    # (n_bits,) numbers of rows
    const double* u               # (64 n_words,) decreasing
    const double* u_squared       # (2, 64 n_words): of the positive and of the negative entries, zero elsewhere
    const uint64_t* signs         # (2, n_words): the rows of positive u, of negative u
    const double* sigma           # (n_active, n_active)
    const double* inverse_alpha   # (n_active,)
    const double* penalty         # (max_order + 1,) not decreasing
    double beta, lam, min_gain    # lam: the largest eigenvalue of C
    double* threshold             # score below which nothing counts any more; shared by the threads


cdef struct Work:
    # What one thread writes. Depth k belongs to the node of k items that is being looked at.
    uint64_t* rows       # (max_order + 1, n_words)
    int32_t* candidate   # (max_order + 1, n_items)
    double* bound        # (max_order + 1, n_items) bound of rho over the supersets of node + candidate
    double* lam          # (max_order + 1,) S_J >= |O_J| / lam for the supersets J of the node
    double* threshold    # (max_order + 1,) the search's, when the bounds were computed
    int32_t* itemset     # (max_order,)
    int32_t* ordered     # (max_order,) the same, ascending
    int32_t* counts      # (n_bits + COUNT_B_PAD,)
    double* b            # (n_active,) Phi' phi
    int32_t* nonzero     # (n_active + 1,)
    double* h            # (n_active,) max(Sigma, 0) c
    double* v            # (64 n_words,)
    uint64_t* part       # (n_words,)
    int64_t n_nodes
    Best best
