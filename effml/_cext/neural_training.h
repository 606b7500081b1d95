/* Adam and the quantisation of weights in one pass over memory each. Elements are independent and no product is fused
 * with a sum, so every instruction set gives the same numbers. */
#ifndef EFFML_NEURAL_TRAINING_H
#define EFFML_NEURAL_TRAINING_H

#include <math.h>
#include <stddef.h>

#if defined(_MSC_VER) && !defined(restrict)
#define restrict __restrict
#endif

#define ROUND_FLOAT 12582912.0f        /* 1.5 * 2^23: adding it leaves no bits behind the point */
#define ROUND_DOUBLE 6755399441055744.0 /* 1.5 * 2^52 */

#define REAL float
#define FUNCTION(name) effml_##name##_float
#define ATTRIBUTES
#define SQRT sqrtf
#define ROUND_HALF_EVEN ROUND_FLOAT
#include "neural_training_body.h"

#define REAL double
#define FUNCTION(name) effml_##name##_double
#define ATTRIBUTES
#define SQRT sqrt
#define ROUND_HALF_EVEN ROUND_DOUBLE
#include "neural_training_body.h"

typedef struct {
    void (*adam)(float *, const float *, float *, float *, ptrdiff_t, float, float, float, float, float, float, float);
    void (*levels)(const float *, ptrdiff_t, float, float, float *);
} effml_training_functions;

#if defined(__GNUC__) && defined(__x86_64__)
#define REAL float
#define FUNCTION(name) effml_##name##_avx2
#define ATTRIBUTES __attribute__((target("avx2")))
#define SQRT sqrtf
#define ROUND_HALF_EVEN ROUND_FLOAT
#include "neural_training_body.h"

#define REAL float
#define FUNCTION(name) effml_##name##_avx512
#define ATTRIBUTES __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512")))
#define SQRT sqrtf
#define ROUND_HALF_EVEN ROUND_FLOAT
#include "neural_training_body.h"
#endif

/* The fastest functions of this CPU; `level` 0 forces the portable ones, 1 stops at AVX2. */
static effml_training_functions effml_choose_training_functions(int level) {
    effml_training_functions chosen = {effml_adam_float, effml_levels_float};
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    if (level > 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
        chosen.adam = effml_adam_avx512;
        chosen.levels = effml_levels_avx512;
    } else if (level > 0 && __builtin_cpu_supports("avx2")) {
        chosen.adam = effml_adam_avx2;
        chosen.levels = effml_levels_avx2;
    }
#else
    (void)level;
#endif
    return chosen;
}

#endif
