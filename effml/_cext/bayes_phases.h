/* The phases of bayes_training.h for float (portable and AVX2, chosen at run time) and for double. */
#ifndef EFFML_BAYES_PHASES_H
#define EFFML_BAYES_PHASES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "exp_lanes.h"

typedef struct {
    double generative, margin_weight, cross_entropy; /* loss = g (-s_y) + w max(0, m) + e (-s_y + logsumexp s) */
    double margin, sharpness;
    int format;   /* 0: float log-probabilities, 1: fixed point, 2: contrast */
    double scale; /* distance of two levels */
    double top;   /* largest code */
    double beta1, beta2, epsilon;
} effml_training;

typedef struct { /* arrays (rows, n_class) of one real type, with EFFML_LANES more entries behind them */
    void *logits, *probabilities, *scores, *first_moments, *second_moments;
    ptrdiff_t n_class, width; /* width: n_class rounded up to whole registers */
} effml_tables;

#if defined(__GNUC__) && !defined(__clang__)
#define EFFML_WHOLE_LOOP _Pragma("GCC unroll 1") /* gcc 12 unrolls up to 16 rounds before it would vectorise */
#else
#define EFFML_WHOLE_LOOP
#endif
#define EFFML_LANES 8 /* the scores of a sample are padded to a multiple of it */
#define EFFML_COLUMNS 32 /* table columns worked on together */

#define REAL float
#define EXP effml_exp_float
#define LOG effml_log_float
#define SQRT sqrtf
#define NAME(x) x##_float
#include "bayes_training.h"
#undef NAME
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EFFML_AVX2 1
#pragma GCC push_options
#pragma GCC target("avx2")
#define NAME(x) x##_float_avx2
#include "bayes_training.h"
#undef NAME
#pragma GCC pop_options
#endif
#undef REAL
#undef EXP
#undef LOG
#undef SQRT

#define REAL double
#define EXP effml_exp_double
#define LOG effml_log_double
#define SQRT sqrt
#define NAME(x) x##_double
#include "bayes_training.h"
#undef NAME
#undef REAL
#undef EXP
#undef LOG
#undef SQRT

typedef struct {
    void (*prepare)(const effml_training *, const effml_tables *, ptrdiff_t, ptrdiff_t, ptrdiff_t, int, void *);
    double (*sample)(const effml_training *, const effml_tables *, const int32_t *, ptrdiff_t, ptrdiff_t, ptrdiff_t,
                     double, void *, void *);
    double (*update)(const effml_training *, const effml_tables *, const void *, const int32_t *, ptrdiff_t, ptrdiff_t,
                     ptrdiff_t, ptrdiff_t, int, double, double, void *);
    double (*option)(const effml_tables *, const void *, const int32_t *, ptrdiff_t);
} effml_phases;

static effml_phases effml_choose_phases(int is_double, int portable) {
    const effml_phases doubles = {effml_prepare_double, effml_sample_double, effml_update_double, effml_option_double};
    const effml_phases floats = {effml_prepare_float, effml_sample_float, effml_update_float, effml_option_float};
#if defined(EFFML_AVX2)
    const effml_phases avx2 = {effml_prepare_float_avx2, effml_sample_float_avx2, effml_update_float_avx2,
                               effml_option_float_avx2};
    if (!is_double && !portable && __builtin_cpu_supports("avx2")) {
        return avx2;
    }
#endif
    (void)portable;
    return is_double ? doubles : floats;
}

#endif
