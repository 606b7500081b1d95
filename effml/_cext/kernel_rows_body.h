/* The loops of kernel_rows.h, included once a number type and instruction set:
 * REAL the type, FUNCTION(name) the name of a function, ATTRIBUTES its target, EXP (NaN stays NaN) and RSQRT what to call. */

#define CLIPPED(x) ((x) < 0 ? (REAL)0 : (x))

/* M kernels of one group. `factors[m * n]` of a power kernel: 1 / sqrt(norms[l] + offset). degree 0: Gaussian, `shape`
 * its gamma; else `shape` is the offset. A kernel whose weight is 0 is left alone; weights == NULL: all are live. */
ATTRIBUTES static void FUNCTION(kernel_row)(const REAL *restrict dots, REAL norm, const REAL *restrict norms,
                                            const REAL *restrict factors, ptrdiff_t n, const REAL *restrict shapes,
                                            const int32_t *restrict degrees, ptrdiff_t n_kernels,
                                            const REAL *restrict weights, REAL *restrict out) {
    ptrdiff_t m, l;
    int j;
    for (m = 0; m < n_kernels; m++, out += n, factors += n) {
        const REAL shape = shapes[m];
        if (weights && weights[m] == 0) {
            continue;
        }
        if (!degrees[m]) {
            for (l = 0; l < n; l++) {
                const REAL squared = (norm + norms[l]) - 2 * dots[l];
                out[l] = -(shape * CLIPPED(squared));
            }
            for (l = 0; l < n; l++) {
                out[l] = EXP(out[l]);
            }
        } else {
            const REAL under = norm + shape;
            const REAL own = RSQRT(under < (REAL)EFFML_SMALLEST ? (REAL)EFFML_SMALLEST : under);
            for (l = 0; l < n; l++) {
                out[l] = ((dots[l] + shape) * own) * factors[l];
            }
            for (j = 1; j < degrees[m]; j++) {
                for (l = 0; l < n; l++) {
                    out[l] *= ((dots[l] + shape) * own) * factors[l];
                }
            }
        }
    }
}

/* <a, b> in 16 lanes. */
ATTRIBUTES static REAL FUNCTION(dot)(const REAL *restrict a, const REAL *restrict b, ptrdiff_t n) {
    REAL lanes[16] = {0}, total = 0;
    ptrdiff_t l, k;
    for (l = 0; l + 16 <= n; l += 16) {
        for (k = 0; k < 16; k++) {
            lanes[k] += a[l + k] * b[l + k];
        }
    }
    for (; l < n; l++) {
        total += a[l] * b[l];
    }
    for (k = 0; k < 16; k++) {
        total += lanes[k];
    }
    return total;
}

/* Gradients of one row. `grad[m * step]` holds dLoss/dk of the combined row (step 0: the same for every kernel).
 *
 *     to_weight[m] = <grad, k_m>
 *     to_dots[l]  += w_m grad dk_m/d dot        to_norms[l] += w_m grad dk_m/d norms[l]
 *     to_shape[m]  = w_m <grad, dk_m / d log gamma>, 0 for power kernels
 *
 * `scratch` holds n numbers. */
ATTRIBUTES static void FUNCTION(kernel_gradient)(
    const REAL *restrict dots, REAL norm, const REAL *restrict norms, const REAL *restrict factors, ptrdiff_t n,
    const REAL *restrict shapes, const int32_t *restrict degrees, ptrdiff_t n_kernels, const REAL *restrict weights,
    const REAL *restrict kernels, const REAL *restrict grad, ptrdiff_t step, int weights_only,
    REAL *restrict to_weight, REAL *restrict to_dots, REAL *restrict to_norms, REAL *restrict to_shape,
    REAL *restrict scratch) {
    ptrdiff_t m, l;
    int j;
    for (m = 0; m < n_kernels; m++, kernels += n, factors += n, grad += step) {
        const REAL shape = shapes[m], weight = weights[m];
        to_weight[m] = FUNCTION(dot)(grad, kernels, n);
        if (weights_only) {
            continue;
        }
        if (!degrees[m]) {
            const REAL twice = 2 * shape * weight, once = shape * weight;
            for (l = 0; l < n; l++) {
                const REAL squared = (norm + norms[l]) - 2 * dots[l];
                const REAL flow = grad[l] * kernels[l];
                to_dots[l] += twice * flow;
                to_norms[l] -= once * flow;
                scratch[l] = kernels[l] * CLIPPED(squared);
            }
            to_shape[m] = -once * FUNCTION(dot)(grad, scratch, n);
        } else {
            const REAL under = norm + shape, degree = (REAL)degrees[m];
            const REAL own = RSQRT(under < (REAL)EFFML_SMALLEST ? (REAL)EFFML_SMALLEST : under);
            for (l = 0; l < n; l++) {
                scratch[l] = weight * grad[l] * degree;
            }
            for (j = 1; j < degrees[m]; j++) {
                for (l = 0; l < n; l++) {
                    scratch[l] *= (dots[l] + shape) * own * factors[l];
                }
            }
            for (l = 0; l < n; l++) {
                const REAL scale = own * factors[l];
                to_dots[l] += scratch[l] * scale;
                to_norms[l] -= (REAL)0.5 * scratch[l] * (dots[l] + shape) * scale * (factors[l] * factors[l]);
            }
            to_shape[m] = 0;
        }
    }
}

/* out[k] += x[0] weight[0, k] + x[1] weight[1, k] + ..., added in this order. */
ATTRIBUTES static void FUNCTION(ordered_row)(const REAL *restrict x, ptrdiff_t n_in, const REAL *restrict weight,
                                             ptrdiff_t n_out, REAL *restrict out) {
    ptrdiff_t j, k;
    for (j = 0; j < n_in; j++, weight += n_out) {
        const REAL v = x[j];
        for (k = 0; k < n_out; k++) {
            out[k] += v * weight[k];
        }
    }
}

#undef CLIPPED
#undef REAL
#undef FUNCTION
#undef ATTRIBUTES
#undef EXP
#undef RSQRT
