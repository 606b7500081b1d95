/* The four phases of a training step of a Bayesian network classifier, for one real type.
 *
 * Included twice by bayes_training.pyx's C, with REAL, NAME(x) and EXP defined. Tables are blocks of rows, one row per
 * (state, parent state) at position state * n_parent + parent state, `width` reals wide with the classes first.
 *
 *   table_NAME    logits A -> probabilities P (over the states) and the quantised log-probabilities Q that score
 *   loss_NAME     scores of one sample -> its loss and dLoss/dscores
 *   backward_NAME gradient by table rows -> gradient by logits, through the normalisation
 *   adam_NAME     one step of Adam
 */

typedef struct {
    double generative, margin_weight, cross_entropy; /* loss = g * (-s_y) + w * max(0, m) + e * (-s_y + lse s) */
    double margin, sharpness;
    int format;   /* 0: float log-probabilities, 1: fixed point, 2: contrast */
    double scale; /* distance of two levels */
    double top;   /* largest code */
    double beta1, beta2, epsilon;
} NAME(effml_training);

/* Rounds half to even like rint, but vectorises everywhere; |x| < 2^22. */
EFFML_INLINE REAL NAME(effml_round)(REAL x) {
    const REAL magic = sizeof(REAL) == 4 ? (REAL)12582912.0 : (REAL)6755399441055744.0;
    REAL y = x + magic;
    return y - magic;
}

EFFML_INLINE REAL NAME(effml_level)(const NAME(effml_training) * t, REAL value) {
    REAL code;
    if (t->format == 1) {
        code = -value * (REAL)(1.0 / t->scale);
        code = code < 0 ? 0 : code;
        code = code > (REAL)t->top ? (REAL)t->top : code;
        return -NAME(effml_round)(code) * (REAL)t->scale;
    }
    return value;
}

/* scratch: 3 * width. sums: one row for a class prior (normalised over the classes), see is_prior. */
EFFML_INLINE void NAME(effml_table)(const NAME(effml_training) * t, const REAL *A, REAL *P, REAL *Q, ptrdiff_t n_state,
                                    ptrdiff_t n_parent, ptrdiff_t n_class, ptrdiff_t width, REAL *scratch) {
    REAL *high = scratch, *sum = scratch + width;
    for (ptrdiff_t p = 0; p < n_parent; p++) {
        for (ptrdiff_t c = 0; c < width; c++) {
            high[c] = A[p * width + c];
            sum[c] = 0;
        }
        for (ptrdiff_t k = 1; k < n_state; k++) {
            const REAL *a = A + (k * n_parent + p) * width;
            for (ptrdiff_t c = 0; c < width; c++) {
                high[c] = a[c] > high[c] ? a[c] : high[c];
            }
        }
        for (ptrdiff_t k = 0; k < n_state; k++) {
            const REAL *a = A + (k * n_parent + p) * width;
            REAL *e = P + (k * n_parent + p) * width;
            for (ptrdiff_t c = 0; c < width; c++) {
                e[c] = EXP(a[c] - high[c]);
                sum[c] += e[c];
            }
        }
        for (ptrdiff_t c = 0; c < width; c++) {
            high[c] += (REAL)log((double)sum[c]);
            sum[c] = 1 / sum[c];
        }
        for (ptrdiff_t k = 0; k < n_state; k++) {
            const ptrdiff_t row = (k * n_parent + p) * width;
            for (ptrdiff_t c = 0; c < width; c++) {
                P[row + c] *= sum[c];
                Q[row + c] = NAME(effml_level)(t, A[row + c] - high[c]);
            }
        }
    }
    (void)n_class;
}

/* The class prior is one row, normalised over the classes. */
EFFML_INLINE void NAME(effml_prior)(const NAME(effml_training) * t, const REAL *A, REAL *P, REAL *Q, ptrdiff_t n_class) {
    REAL high = A[0], sum = 0;
    for (ptrdiff_t c = 1; c < n_class; c++) {
        high = A[c] > high ? A[c] : high;
    }
    for (ptrdiff_t c = 0; c < n_class; c++) {
        P[c] = EXP(A[c] - high);
        sum += P[c];
    }
    high += (REAL)log((double)sum);
    for (ptrdiff_t c = 0; c < n_class; c++) {
        P[c] /= sum;
        Q[c] = NAME(effml_level)(t, A[c] - high);
    }
}

/* Contrast rows: centred over the classes, mid-rise codes of one step; P keeps the centred values in steps. */
EFFML_INLINE void NAME(effml_contrast)(const NAME(effml_training) * t, const REAL *A, REAL *P, REAL *Q, ptrdiff_t n_row,
                                       ptrdiff_t n_class, ptrdiff_t width) {
    const REAL half = (REAL)(0.5 * t->top), inverse = (REAL)(1.0 / t->scale), step = (REAL)t->scale;
    for (ptrdiff_t row = 0; row < n_row; row++) {
        const REAL *a = A + row * width;
        REAL mean = 0;
        for (ptrdiff_t c = 0; c < n_class; c++) {
            mean += a[c];
        }
        mean /= (REAL)n_class;
        for (ptrdiff_t c = 0; c < width; c++) {
            REAL v = (a[c] - mean) * inverse, code = v + half;
            code = code < 0 ? 0 : code;
            code = code > (REAL)t->top ? (REAL)t->top : code;
            P[row * width + c] = v;
            Q[row * width + c] = (NAME(effml_round)(code) - half) * step;
        }
    }
}

/* Returns the loss of one sample and replaces the scores by their gradient; scratch: width. */
EFFML_INLINE double NAME(effml_loss)(const NAME(effml_training) * t, REAL *score, ptrdiff_t y, double weight,
                                     ptrdiff_t n_class, ptrdiff_t width, REAL *scratch) {
    const REAL own = score[y], w = (REAL)weight;
    double loss = t->generative * -(double)own;
    REAL own_gradient = -(REAL)t->generative;
    REAL soft = 0, hard = 0; /* factors of exp(scratch) / sum */
    REAL high, sum = 0, sharpness = 1, offset = 0;
    if (t->margin_weight > 0) {
        sharpness = (REAL)t->sharpness;
        offset = (REAL)t->margin - own;
    }
    if (n_class < 2) {
        for (ptrdiff_t c = 0; c < width; c++) {
            score[c] = 0;
        }
        score[y] = own_gradient * w;
        return loss * weight;
    }
    if (t->margin_weight > 0) {
        high = y == 0 ? score[1] : score[0];
        for (ptrdiff_t c = 0; c < n_class; c++) {
            REAL z = c == y ? high : score[c];
            high = z > high ? z : high;
        }
        for (ptrdiff_t c = 0; c < n_class; c++) {
            REAL e = EXP(sharpness * (score[c] - high));
            scratch[c] = c == y ? 0 : e;
        }
        for (ptrdiff_t c = 0; c < n_class; c++) {
            sum += scratch[c];
        }
        REAL m = (offset + high) + (REAL)log((double)sum) / sharpness;
        if (m > 0) {
            loss += t->margin_weight * (double)m;
            own_gradient -= (REAL)t->margin_weight;
            hard = (REAL)t->margin_weight / sum;
        }
        for (ptrdiff_t c = 0; c < n_class; c++) {
            scratch[c] *= hard;
        }
    } else {
        for (ptrdiff_t c = 0; c < n_class; c++) {
            scratch[c] = 0;
        }
    }
    if (t->cross_entropy > 0) {
        high = score[0];
        for (ptrdiff_t c = 1; c < n_class; c++) {
            high = score[c] > high ? score[c] : high;
        }
        sum = 0;
        for (ptrdiff_t c = 0; c < n_class; c++) {
            score[c] = EXP(score[c] - high);
        }
        for (ptrdiff_t c = 0; c < n_class; c++) {
            sum += score[c];
        }
        loss += t->cross_entropy * ((double)high + log((double)sum) - (double)own);
        own_gradient -= (REAL)t->cross_entropy;
        soft = (REAL)t->cross_entropy / sum;
        for (ptrdiff_t c = 0; c < n_class; c++) {
            scratch[c] += soft * score[c];
        }
    }
    scratch[y] += own_gradient;
    for (ptrdiff_t c = 0; c < n_class; c++) {
        score[c] = scratch[c] * w;
    }
    for (ptrdiff_t c = n_class; c < width; c++) {
        score[c] = 0;
    }
    return loss * weight;
}

/* G by table rows -> G by logits: dA = G - P * (sum of G over the states). scratch: width. */
EFFML_INLINE void NAME(effml_backward)(const REAL *P, REAL *G, ptrdiff_t n_state, ptrdiff_t n_parent, ptrdiff_t width,
                                       REAL *scratch) {
    for (ptrdiff_t p = 0; p < n_parent; p++) {
        for (ptrdiff_t c = 0; c < width; c++) {
            scratch[c] = 0;
        }
        for (ptrdiff_t k = 0; k < n_state; k++) {
            const REAL *g = G + (k * n_parent + p) * width;
            for (ptrdiff_t c = 0; c < width; c++) {
                scratch[c] += g[c];
            }
        }
        for (ptrdiff_t k = 0; k < n_state; k++) {
            const ptrdiff_t row = (k * n_parent + p) * width;
            for (ptrdiff_t c = 0; c < width; c++) {
                G[row + c] -= P[row + c] * scratch[c];
            }
        }
    }
}

EFFML_INLINE void NAME(effml_adam)(const NAME(effml_training) * t, REAL *A, REAL *M, REAL *V, const REAL *G, ptrdiff_t n,
                                   double rate, double step) {
    const REAL b1 = (REAL)t->beta1, b2 = (REAL)t->beta2, c1 = (REAL)(1 - t->beta1), c2 = (REAL)(1 - t->beta2);
    const REAL lr = (REAL)(rate * sqrt(1 - pow(t->beta2, step)) / (1 - pow(t->beta1, step)));
    const REAL epsilon = (REAL)t->epsilon;
    for (ptrdiff_t j = 0; j < n; j++) {
        M[j] = b1 * M[j] + c1 * G[j];
        V[j] = b2 * V[j] + c2 * (G[j] * G[j]);
        A[j] -= lr * M[j] / (SQRT(V[j]) + epsilon);
    }
}
