/* Rows as bits: intersections, sums over the rows of a set, and a best score that threads share.
 *
 * Three versions of each loop, chosen at run time, so the build needs no machine flag. All give the same numbers: the
 * sum over a set of rows has 32 partial sums, of the rows equal modulo 32, added up in one order.
 *
 * Bit columns have `n_words` 64-bit words, a multiple of 8; bits past the last row are zero, and vectors of one double
 * a row have 64 * n_words entries, zero (and finite) past the last row.
 */
#ifndef EFFML_ITEMSET_SEARCH_H
#define EFFML_ITEMSET_SEARCH_H

#include <string.h>

#include "pair_counts.h"

#if defined(__GNUC__)
#define EFFML_ALWAYS_INLINE __attribute__((always_inline)) static inline
#elif defined(_MSC_VER)
#define EFFML_ALWAYS_INLINE static __forceinline
#else
#define EFFML_ALWAYS_INLINE static inline
#endif

typedef int64_t (*intersect_kernel)(const uint64_t *a, const uint64_t *b, uint64_t *out, int64_t n_words);
typedef double (*sum_kernel)(const uint64_t *rows, const double *values, int64_t n_words);
typedef void (*add_kernel)(const uint64_t *a, const uint64_t *b, double value, double *out, int64_t n_words);

typedef struct {
    intersect_kernel intersect; /* out = a & b; returns the number of rows in it */
    sum_kernel sum;             /* sum of the values of the rows */
    add_kernel add;             /* out[row] += value for the rows of a & b */
    count_kernel count;         /* see pair_counts.h */
} RowKernels;

static double effml_lanes[256][8]; /* the bits of a byte as numbers */

static void fill_lanes(void)
{
    for (int byte = 0; byte < 256; ++byte)
        for (int k = 0; k < 8; ++k)
            effml_lanes[byte][k] = byte >> k & 1;
}

EFFML_ALWAYS_INLINE double total_of_lanes(const double *lanes)
{
    double sum = 0;
    for (int k = 0; k < 32; ++k)
        sum += lanes[k];
    return sum;
}

static int64_t intersect_portable(const uint64_t *a, const uint64_t *b, uint64_t *out, int64_t n_words)
{
    int64_t n = 0;
    for (int64_t w = 0; w < n_words; ++w) {
        out[w] = a[w] & b[w];
        n += popcount_word(out[w]);
    }
    return n;
}

EFFML_ALWAYS_INLINE double sum_body(const uint64_t *rows, const double *values, int64_t n_words)
{
    double lanes[32] = {0};
    for (int64_t w = 0; w < n_words; ++w) {
        if (!rows[w])
            continue;
        for (int half = 0; half < 2; ++half)
            for (int byte = 0; byte < 4; ++byte) {
                const double *on = effml_lanes[rows[w] >> (32 * half + 8 * byte) & 255];
                const double *x = values + 64 * w + 32 * half + 8 * byte;
                for (int k = 0; k < 8; ++k)
                    lanes[8 * byte + k] += x[k] * on[k];
            }
    }
    return total_of_lanes(lanes);
}

EFFML_ALWAYS_INLINE void add_body(const uint64_t *a, const uint64_t *b, double value, double *out, int64_t n_words)
{
    for (int64_t w = 0; w < n_words; ++w) {
        const uint64_t rows = a[w] & b[w];
        if (!rows)
            continue;
        for (int byte = 0; byte < 8; ++byte) {
            const double *on = effml_lanes[rows >> (8 * byte) & 255];
            for (int k = 0; k < 8; ++k)
                out[64 * w + 8 * byte + k] += value * on[k];
        }
    }
}

static double sum_portable(const uint64_t *rows, const double *values, int64_t n_words)
{
    return sum_body(rows, values, n_words);
}

static void add_portable(const uint64_t *a, const uint64_t *b, double value, double *out, int64_t n_words)
{
    add_body(a, b, value, out, n_words);
}

#if EFFML_X86

#define EFFML_AVX2 __attribute__((target("avx2,popcnt")))

EFFML_AVX2 static int64_t intersect_avx2(const uint64_t *a, const uint64_t *b, uint64_t *out, int64_t n_words)
{
    int64_t n = 0;
    for (int64_t w = 0; w < n_words; ++w) {
        out[w] = a[w] & b[w];
        n += __builtin_popcountll(out[w]);
    }
    return n;
}

EFFML_AVX2 static double sum_avx2(const uint64_t *rows, const double *values, int64_t n_words)
{
    return sum_body(rows, values, n_words);
}

EFFML_AVX2 static void add_avx2(const uint64_t *a, const uint64_t *b, double value, double *out, int64_t n_words)
{
    add_body(a, b, value, out, n_words);
}

EFFML_AVX512 static int64_t intersect_avx512(const uint64_t *a, const uint64_t *b, uint64_t *out, int64_t n_words)
{
    __m512i n = _mm512_setzero_si512();
    for (int64_t w = 0; w < n_words; w += 8) {
        const __m512i both = _mm512_and_si512(_mm512_loadu_si512(a + w), _mm512_loadu_si512(b + w));
        _mm512_storeu_si512(out + w, both);
        n = _mm512_add_epi64(n, _mm512_popcnt_epi64(both));
    }
    return _mm512_reduce_add_epi64(n);
}

EFFML_AVX512 static double sum_avx512(const uint64_t *rows, const double *values, int64_t n_words)
{
    __m512d sum[4] = {_mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd()};
    double lanes[32];
    for (int64_t w = 0; w < n_words; ++w) {
        const uint64_t bits = rows[w];
        const double *x = values + 64 * w;
        if (!bits)
            continue;
        for (int half = 0; half < 2; ++half)
            for (int byte = 0; byte < 4; ++byte) {
                const int k = 4 * half + byte;
                sum[byte] =
                    _mm512_mask_add_pd(sum[byte], (__mmask8)(bits >> 8 * k), sum[byte], _mm512_loadu_pd(x + 8 * k));
            }
    }
    for (int byte = 0; byte < 4; ++byte)
        _mm512_storeu_pd(lanes + 8 * byte, sum[byte]);
    return total_of_lanes(lanes);
}

EFFML_AVX512 static void add_avx512(const uint64_t *a, const uint64_t *b, double value, double *out, int64_t n_words)
{
    const __m512d added = _mm512_set1_pd(value);
    for (int64_t w = 0; w < n_words; ++w) {
        const uint64_t bits = a[w] & b[w];
        if (!bits)
            continue;
        for (int k = 0; k < 8; ++k) {
            const __m512d x = _mm512_loadu_pd(out + 64 * w + 8 * k);
            _mm512_storeu_pd(out + 64 * w + 8 * k, _mm512_mask_add_pd(x, (__mmask8)(bits >> 8 * k), x, added));
        }
    }
}

#endif /* EFFML_X86 */

enum { ROWS_PORTABLE, ROWS_AVX2, ROWS_AVX512, N_ROW_KERNELS };

/* Fill in the kernels of that number; 0 where this processor (or this build) lacks them. */
static int find_row_kernels(int number, RowKernels *kernels)
{
    const int counts[] = {KERNEL_PORTABLE, KERNEL_AVX2, KERNEL_AVX512};
    kernels->count = find_kernel(counts[number]);
    kernels->intersect = intersect_portable;
    kernels->sum = sum_portable;
    kernels->add = add_portable;
#if EFFML_X86
    if (number == ROWS_AVX2) {
        kernels->intersect = intersect_avx2;
        kernels->sum = sum_avx2;
        kernels->add = add_avx2;
        return kernels->count != 0 && __builtin_cpu_supports("popcnt");
    }
    if (number == ROWS_AVX512) {
        kernels->intersect = intersect_avx512;
        kernels->sum = sum_avx512;
        kernels->add = add_avx512;
    }
#endif
    return kernels->count != 0;
}

/* Position of the highest set bit; bits != 0. */
static inline int highest_bit(uint64_t bits)
{
#if defined(__GNUC__)
    return 63 - __builtin_clzll(bits);
#else
    int k = 63;
    for (; !(bits >> 63); bits <<= 1)
        --k;
    return k;
#endif
}

/* A number that threads only ever raise. An old value read is still a valid, lower one. */
static inline double read_shared(const double *shared)
{
    double value;
#if defined(_OPENMP)
#pragma omp atomic read
#endif
    value = *shared;
    return value;
}

static inline void raise_shared(double *shared, double value)
{
#if defined(_OPENMP)
#pragma omp critical(effml_itemset_search)
#endif
    {
        if (value > read_shared(shared)) {
#if defined(_OPENMP)
#pragma omp atomic write
#endif
            *shared = value;
        }
    }
}

#endif
