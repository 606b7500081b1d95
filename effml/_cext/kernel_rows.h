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

#if defined(_MSC_VER) && !defined(restrict)
#define restrict __restrict
#endif

#define EFFML_SMALLEST 1e-12f /* guard of a zero norm */

/* exp where NaN stays NaN, by masks: a conditional keeps gcc 12 from vectorising the conversion to int on AVX2. */
EFFML_INLINE float effml_exp_or_nan(float x) {
    union {
        float f;
        int32_t i;
    } value, given;
    const int32_t missing = -(int32_t)(x != x);
    given.f = x;
    value.f = effml_exp_float(x);
    value.i = (value.i & ~missing) | (given.i & missing);
    return value.f;
}

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

#define REAL float
#define FUNCTION(name) effml_##name##_float
#define ATTRIBUTES
#define EXP effml_exp_or_nan
#define RSQRT effml_rsqrt_float
#include "kernel_rows_body.h"

#define REAL double
#define FUNCTION(name) effml_##name##_double
#define ATTRIBUTES
#define EXP effml_exp_double
#define RSQRT effml_rsqrt_double
#include "kernel_rows_body.h"

typedef void (*effml_kernel_row_function)(const float *, float, const float *, const float *, ptrdiff_t, const float *,
                                          const int32_t *, ptrdiff_t, const float *, float *);
typedef void (*effml_kernel_gradient_function)(const float *, float, const float *, const float *, ptrdiff_t,
                                               const float *, const int32_t *, ptrdiff_t, const float *, const float *,
                                               const float *, ptrdiff_t, int, float *, float *, float *, float *,
                                               float *);
typedef void (*effml_ordered_row_function)(const float *, ptrdiff_t, const float *, ptrdiff_t, float *);

typedef struct {
    effml_kernel_row_function row;
    effml_kernel_gradient_function gradient;
    effml_ordered_row_function ordered;
} effml_kernel_functions;

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define REAL float
#define FUNCTION(name) effml_##name##_avx2
#define ATTRIBUTES __attribute__((target("avx2")))
#define EXP effml_exp_or_nan
#define RSQRT effml_rsqrt_float
#include "kernel_rows_body.h"

#define REAL float
#define FUNCTION(name) effml_##name##_avx512
#define ATTRIBUTES __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512")))
#define EXP effml_exp_or_nan
#define RSQRT effml_rsqrt_float
#include "kernel_rows_body.h"
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
