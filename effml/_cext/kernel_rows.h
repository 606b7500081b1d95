/* Kernel values of one row against all landmarks, M kernels at once, from the dot products and squared norms.
 *
 *     Gaussian:  k = exp(-gamma * max(0, norm + norms[l] - 2 dot))
 *     power:     k = c^degree,   c = (dot + offset) / sqrt((norm + offset) (norms[l] + offset))
 *
 * Every number has one order of operations and no fused multiply-add, so the results are those of the exported C. */
#ifndef EFFML_KERNEL_ROWS_H
#define EFFML_KERNEL_ROWS_H

#include <stddef.h>

#include "exp_lanes.h"

#define EFFML_SMALLEST 1e-12f /* guard of a zero norm */

/* 1 / sqrt(x) for a normal positive number: a first guess from the bits, then four Newton steps; no libm. */
EFFML_INLINE float effml_rsqrt_float(float x) {
    union {
        float f;
        int32_t i;
    } bits;
    float y;
    bits.f = x;
    bits.i = 0x5f3759df - (bits.i >> 1);
    y = bits.f;
    y = y * (1.5f - (0.5f * x) * (y * y));
    y = y * (1.5f - (0.5f * x) * (y * y));
    y = y * (1.5f - (0.5f * x) * (y * y));
    y = y * (1.5f - (0.5f * x) * (y * y));
    return y;
}

EFFML_INLINE double effml_rsqrt_double(double x) { return 1.0 / sqrt(x); }

/* M kernels of one group. `factors[m * n]` of a power kernel: 1 / sqrt(norms[l] + offset). degree 0: Gaussian, `shape`
 * its gamma; else `shape` is the offset. A kernel whose weight is 0 is left alone; weights == NULL: all are live. */
#define EFFML_DEFINE_KERNEL_ROWS(SUFFIX, REAL, ATTRIBUTES)                                                            \
    ATTRIBUTES static void effml_kernel_row_##SUFFIX(const REAL *dots, REAL norm, const REAL *norms,                  \
                                                     const REAL *factors, ptrdiff_t n, const REAL *shapes,            \
                                                     const int32_t *degrees, ptrdiff_t n_kernels,                     \
                                                     const REAL *weights, REAL *out) {                                \
        ptrdiff_t m, l;                                                                                               \
        int j;                                                                                                        \
        for (m = 0; m < n_kernels; m++, out += n, factors += n) {                                                     \
            const REAL shape = shapes[m];                                                                             \
            if (weights && weights[m] == 0) {                                                                         \
                continue;                                                                                             \
            }                                                                                                         \
            if (!degrees[m]) {                                                                                        \
                for (l = 0; l < n; l++) {                                                                             \
                    const REAL squared = (norm + norms[l]) - 2 * dots[l];                                             \
                    const REAL v = -(shape * (squared < 0 ? 0 : squared));                                            \
                    const REAL e = EFFML_EXP_##REAL(v);                                                               \
                    out[l] = v == v ? e : v;                                                                          \
                }                                                                                                     \
            } else {                                                                                                  \
                const REAL under = norm + shape;                                                                      \
                const REAL own = EFFML_RSQRT_##REAL(under < (REAL)EFFML_SMALLEST ? (REAL)EFFML_SMALLEST : under);     \
                for (l = 0; l < n; l++) {                                                                             \
                    const REAL c = ((dots[l] + shape) * own) * factors[l];                                            \
                    REAL power = c;                                                                                   \
                    for (j = 1; j < degrees[m]; j++) {                                                                \
                        power *= c;                                                                                   \
                    }                                                                                                 \
                    out[l] = power;                                                                                   \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
    }

/* Gradients of one row. `grad[m * step]` holds dLoss/dk of the combined row (step 0: the same for every kernel).
 *
 *     to_weight[m] = <grad, k_m>
 *     to_dots[l]  += w_m grad dk_m/d dot        to_norms[l] += w_m grad dk_m/d norms[l]
 *     to_shape[m]  = w_m <grad, dk_m / d log gamma>, 0 for power kernels
 */
#define EFFML_DEFINE_KERNEL_GRADIENT(SUFFIX, REAL, ATTRIBUTES)                                                        \
    ATTRIBUTES static void effml_kernel_gradient_##SUFFIX(                                                            \
        const REAL *dots, REAL norm, const REAL *norms, const REAL *factors, ptrdiff_t n, const REAL *shapes,         \
        const int32_t *degrees, ptrdiff_t n_kernels, const REAL *weights, const REAL *kernels, const REAL *grad,      \
        ptrdiff_t step, int weights_only, REAL *to_weight, REAL *to_dots, REAL *to_norms, REAL *to_shape) {           \
        ptrdiff_t m, l, lane;                                                                                         \
        int j;                                                                                                        \
        for (m = 0; m < n_kernels; m++, kernels += n, factors += n, grad += step) {                                   \
            const REAL shape = shapes[m], weight = weights[m];                                                        \
            REAL sums[16] = {0}, scales[16] = {0}, total = 0, slope = 0;                                              \
            for (l = 0; l + 16 <= n; l += 16) {                                                                       \
                for (lane = 0; lane < 16; lane++) {                                                                   \
                    sums[lane] += grad[l + lane] * kernels[l + lane];                                                 \
                }                                                                                                     \
            }                                                                                                         \
            for (; l < n; l++) {                                                                                      \
                total += grad[l] * kernels[l];                                                                        \
            }                                                                                                         \
            for (lane = 0; lane < 16; lane++) {                                                                       \
                total += sums[lane];                                                                                  \
            }                                                                                                         \
            to_weight[m] = total;                                                                                     \
            if (weights_only) {                                                                                       \
                continue;                                                                                             \
            }                                                                                                         \
            if (!degrees[m]) {                                                                                        \
                const REAL twice = 2 * shape * weight;                                                                \
                for (l = 0; l < n; l++) {                                                                             \
                    const REAL flow = grad[l] * kernels[l];                                                           \
                    to_dots[l] += twice * flow;                                                                       \
                    to_norms[l] -= (REAL)0.5 * twice * flow;                                                          \
                }                                                                                                     \
                for (l = 0; l + 16 <= n; l += 16) {                                                                   \
                    for (lane = 0; lane < 16; lane++) {                                                               \
                        const REAL squared = (norm + norms[l + lane]) - 2 * dots[l + lane];                           \
                        scales[lane] += grad[l + lane] * kernels[l + lane] * (squared < 0 ? 0 : squared);             \
                    }                                                                                                 \
                }                                                                                                     \
                for (; l < n; l++) {                                                                                  \
                    const REAL squared = (norm + norms[l]) - 2 * dots[l];                                             \
                    slope += grad[l] * kernels[l] * (squared < 0 ? 0 : squared);                                      \
                }                                                                                                     \
                for (lane = 0; lane < 16; lane++) {                                                                   \
                    slope += scales[lane];                                                                            \
                }                                                                                                     \
                to_shape[m] = -(shape * weight) * slope;                                                              \
            } else {                                                                                                  \
                const REAL under = norm + shape;                                                                      \
                const REAL own = EFFML_RSQRT_##REAL(under < (REAL)EFFML_SMALLEST ? (REAL)EFFML_SMALLEST : under);     \
                const REAL degree = (REAL)degrees[m];                                                                 \
                for (l = 0; l < n; l++) {                                                                             \
                    const REAL scale = own * factors[l];                                                              \
                    const REAL c = (dots[l] + shape) * scale;                                                         \
                    REAL lower = weight * grad[l] * degree;                                                           \
                    for (j = 1; j < degrees[m]; j++) {                                                                \
                        lower *= c;                                                                                   \
                    }                                                                                                 \
                    to_dots[l] += lower * scale;                                                                      \
                    to_norms[l] -= (REAL)0.5 * lower * c * (factors[l] * factors[l]);                                 \
                }                                                                                                     \
                to_shape[m] = 0;                                                                                      \
            }                                                                                                         \
        }                                                                                                             \
    }

/* out[k] = (start[k] or 0) + x[0] weight[0, k] + x[1] weight[1, k] + ..., added in this order. */
#define EFFML_DEFINE_ORDERED_ROW(SUFFIX, REAL, ATTRIBUTES)                                                            \
    ATTRIBUTES static void effml_ordered_row_##SUFFIX(const REAL *x, ptrdiff_t n_in, const REAL *weight,              \
                                                      ptrdiff_t n_out, REAL *out) {                                   \
        ptrdiff_t j, k;                                                                                               \
        for (j = 0; j < n_in; j++, weight += n_out) {                                                                 \
            const REAL v = x[j];                                                                                      \
            for (k = 0; k < n_out; k++) {                                                                             \
                out[k] += v * weight[k];                                                                              \
            }                                                                                                         \
        }                                                                                                             \
    }

#define EFFML_EXP_float effml_exp_float
#define EFFML_EXP_double effml_exp_double
#define EFFML_RSQRT_float effml_rsqrt_float
#define EFFML_RSQRT_double effml_rsqrt_double

#define EFFML_DEFINE_ALL(SUFFIX, REAL, ATTRIBUTES)                                                                    \
    EFFML_DEFINE_KERNEL_ROWS(SUFFIX, REAL, ATTRIBUTES)                                                                \
    EFFML_DEFINE_KERNEL_GRADIENT(SUFFIX, REAL, ATTRIBUTES)                                                            \
    EFFML_DEFINE_ORDERED_ROW(SUFFIX, REAL, ATTRIBUTES)

EFFML_DEFINE_ALL(float, float, )
EFFML_DEFINE_ALL(double, double, )

typedef void (*effml_kernel_row_function)(const float *, float, const float *, const float *, ptrdiff_t, const float *,
                                          const int32_t *, ptrdiff_t, const float *, float *);
typedef void (*effml_kernel_gradient_function)(const float *, float, const float *, const float *, ptrdiff_t,
                                               const float *, const int32_t *, ptrdiff_t, const float *, const float *,
                                               const float *, ptrdiff_t, int, float *, float *, float *, float *);
typedef void (*effml_ordered_row_function)(const float *, ptrdiff_t, const float *, ptrdiff_t, float *);

typedef struct {
    effml_kernel_row_function row;
    effml_kernel_gradient_function gradient;
    effml_ordered_row_function ordered;
} effml_kernel_functions;

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
EFFML_DEFINE_ALL(avx2, float, __attribute__((target("avx2"))))
EFFML_DEFINE_ALL(avx512, float, __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512"))))
#endif

/* The fastest functions of this CPU; `level` 0 forces the portable ones, 1 stops at AVX2. All give the same rows. */
static effml_kernel_functions effml_choose_kernel_functions(int level) {
    effml_kernel_functions chosen = {effml_kernel_row_float, effml_kernel_gradient_float, effml_ordered_row_float};
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_cpu_init();
    if (level > 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
        chosen.row = effml_kernel_row_avx512;
        chosen.gradient = effml_kernel_gradient_avx512;
        chosen.ordered = effml_ordered_row_avx512;
    } else if (level > 0 && __builtin_cpu_supports("avx2")) {
        chosen.row = effml_kernel_row_avx2;
        chosen.gradient = effml_kernel_gradient_avx2;
        chosen.ordered = effml_ordered_row_avx2;
    }
#else
    (void)level;
#endif
    return chosen;
}

#endif
