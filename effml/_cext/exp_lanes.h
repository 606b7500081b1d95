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

EFFML_INLINE float effml_exp_float(float x) {
    float scaled, n_float, r, p;
    int32_t n;
    union {
        int32_t i;
        float f;
    } power;
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
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

#endif
