/* exp for loops that the compiler vectorises: the polynomial of effml.program.steps.outputs.exp_float32,
 * the same float32 result on every instruction set (no fused multiply-add, no libm). */
#ifndef EFFML_EXP_LANES_H
#define EFFML_EXP_LANES_H

#include <math.h>
#include <stdint.h>

#if defined(__GNUC__)
#define EFFML_INLINE static inline __attribute__((always_inline))
#else
#define EFFML_INLINE static inline
#endif

/* x within [low, high], by masks: gcc 12 gives up on AVX2 when a conditional clamp precedes a conversion to int. */
EFFML_INLINE float effml_clamp_float(float x, float low, float high) {
    union {
        float f;
        int32_t i;
    } value, lowest, highest;
    const int32_t below = -(int32_t)(x < low), above = -(int32_t)(x > high);
    value.f = x;
    lowest.f = low;
    highest.f = high;
    value.i = (value.i & ~(below | above)) | (lowest.i & below) | (highest.i & above);
    return value.f;
}

EFFML_INLINE float effml_exp_float(float x) {
    float scaled, n_float, r, p;
    int32_t n;
    union {
        int32_t i;
        float f;
    } power;
    x = effml_clamp_float(x, -87.0f, 88.0f);
    scaled = x * 1.44269502f;
    n = (int32_t)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
    n_float = (float)n;
    r = (x - n_float * 0.693359375f) - n_float * -2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 0.5f;
    p = (p * (r * r) + r) + 1.0f;
    power.i = (n + 127) << 23;
    return p * power.f;
}

EFFML_INLINE double effml_exp_double(double x) { return exp(x); }

/* Natural logarithm of a normal positive number, within 1 ulp (the polynomial of Cephes logf). */
EFFML_INLINE float effml_log_float(float x) {
    const int32_t root_half = 0x3f3504f3; /* bits of sqrt(1/2): the mantissa ends up in [sqrt(1/2), sqrt(2)) */
    int32_t n;
    float n_float, z, p;
    union {
        int32_t i;
        float f;
    } bits;
    bits.f = x;
    n = (bits.i - root_half) >> 23;
    bits.i -= n << 23;
    n_float = (float)n;
    z = bits.f - 1.0f;
    p = 7.0376836292e-2f;
    p = p * z - 1.1514610310e-1f;
    p = p * z + 1.1676998740e-1f;
    p = p * z - 1.2420140846e-1f;
    p = p * z + 1.4249322787e-1f;
    p = p * z - 1.6668057665e-1f;
    p = p * z + 2.0000714765e-1f;
    p = p * z - 2.4999993993e-1f;
    p = p * z + 3.3333331174e-1f;
    p = z * (z * z) * p;
    p = p + n_float * -2.12194440e-4f;
    p = p - 0.5f * (z * z);
    return (z + p) + n_float * 0.693359375f;
}

EFFML_INLINE double effml_log_double(double x) { return log(x); }

#endif
