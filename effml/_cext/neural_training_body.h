/* Element-wise loops of training for one type and instruction set: REAL, FUNCTION, ATTRIBUTES, SQRT, ROUND_HALF_EVEN.
 * See neural_training.h. */

/* Adam with its two moments, then the clip to [low, high]; `rate` holds the bias corrections. */
ATTRIBUTES static void FUNCTION(adam)(REAL *restrict value, const REAL *restrict gradient, REAL *restrict first,
                                      REAL *restrict second, ptrdiff_t n, REAL rate, REAL one_less_beta1,
                                      REAL one_less_beta2, REAL epsilon, REAL decay, REAL low, REAL high) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const REAL g = gradient[i] + decay * value[i];
        const REAL m = first[i] + one_less_beta1 * (g - first[i]);
        const REAL v = second[i] + one_less_beta2 * (g * g - second[i]);
        REAL w = value[i] - rate * m / (SQRT(v) + epsilon);
        w = w < low ? low : w;
        value[i] = w > high ? high : w;
        first[i] = m;
        second[i] = v;
    }
}

/* `factor` times the odd integer 2u - top next to top * w; for top == 1 the sign. */
ATTRIBUTES static void FUNCTION(levels)(const REAL *restrict w, ptrdiff_t n, REAL top, REAL factor,
                                        REAL *restrict out) {
    if (top == 1) {
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] = w[i] >= 0 ? factor : -factor;
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL c = w[i] < -1 ? (REAL)-1 : w[i];
        c = c > 1 ? (REAL)1 : c;
        const REAL scaled = (c * (REAL)0.5 + (REAL)0.5) * top;
        const REAL u = (scaled + ROUND_HALF_EVEN) - ROUND_HALF_EVEN; /* exact for 0..255 */
        out[i] = ((REAL)2 * u - top) * factor;
    }
}

#undef REAL
#undef FUNCTION
#undef ATTRIBUTES
#undef SQRT
#undef ROUND_HALF_EVEN
