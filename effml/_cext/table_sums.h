/* Sum of table rows, the inner loop of a Bayesian network classifier: out[c] = sum_k table[row_k * width + c].
 *
 * Every class is one lane, added in the order of `rows`, one rounding per addition: the result is the same float32 on
 * every instruction set. Eight lanes at a time through the compiler's vector type; AVX2 is chosen at run time.
 */
#ifndef EFFML_TABLE_SUMS_H
#define EFFML_TABLE_SUMS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)

typedef float effml_lanes __attribute__((vector_size(32), aligned(4)));

/* n_lanes is a constant at every call, so the accumulators live in registers. */
static inline __attribute__((always_inline)) void effml_sum_lanes(const float *table, const int64_t *rows,
                                                                  ptrdiff_t n_rows, ptrdiff_t width, float *out,
                                                                  const int n_lanes) {
    effml_lanes sum[4];
    const float *first = table + rows[0] * width;
    for (int j = 0; j < n_lanes; j++) {
        sum[j] = *(const effml_lanes *)(first + 8 * j);
    }
    for (ptrdiff_t k = 1; k < n_rows; k++) {
        const float *row = table + rows[k] * width;
        for (int j = 0; j < n_lanes; j++) {
            sum[j] += *(const effml_lanes *)(row + 8 * j);
        }
    }
    for (int j = 0; j < n_lanes; j++) {
        *(effml_lanes *)(out + 8 * j) = sum[j];
    }
}

static inline __attribute__((always_inline)) void effml_sum_rows_body(const float *table, const int64_t *rows,
                                                                      ptrdiff_t n_rows, ptrdiff_t width, float *out) {
    ptrdiff_t c = 0;
    for (; c + 32 <= width; c += 32) {
        effml_sum_lanes(table + c, rows, n_rows, width, out + c, 4);
    }
    switch ((width - c) / 8) {
        case 3: effml_sum_lanes(table + c, rows, n_rows, width, out + c, 3); break;
        case 2: effml_sum_lanes(table + c, rows, n_rows, width, out + c, 2); break;
        case 1: effml_sum_lanes(table + c, rows, n_rows, width, out + c, 1); break;
        default: break;
    }
}

static void effml_sum_rows_portable(const float *table, const int64_t *rows, ptrdiff_t n_rows, ptrdiff_t width,
                                    float *out) {
    effml_sum_rows_body(table, rows, n_rows, width, out);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void effml_sum_rows_avx2(const float *table, const int64_t *rows,
                                                                ptrdiff_t n_rows, ptrdiff_t width, float *out) {
    effml_sum_rows_body(table, rows, n_rows, width, out);
}
#endif

#else /* no vector type: the plain loop */

static void effml_sum_rows_portable(const float *table, const int64_t *rows, ptrdiff_t n_rows, ptrdiff_t width,
                                    float *out) {
    for (ptrdiff_t c = 0; c < width; c++) {
        out[c] = table[rows[0] * width + c];
    }
    for (ptrdiff_t k = 1; k < n_rows; k++) {
        const float *row = table + rows[k] * width;
        for (ptrdiff_t c = 0; c < width; c++) {
            out[c] += row[c];
        }
    }
}

#endif

typedef void (*effml_sum_rows_function)(const float *, const int64_t *, ptrdiff_t, ptrdiff_t, float *);

/* `portable` forces the path without special instructions; tests compare the two. */
static effml_sum_rows_function effml_choose_sum_rows(int portable) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (!portable && __builtin_cpu_supports("avx2")) {
        return effml_sum_rows_avx2;
    }
#endif
    (void)portable;
    return effml_sum_rows_portable;
}

#endif
