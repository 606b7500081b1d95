/* The four phases of a training step of a Bayesian network classifier, for one real type and instruction set.
 *
 * Included by bayes_phases.h with REAL, EXP, SQRT and NAME(x) defined. A table is a block of consecutive rows, one per
 * (state, parent state), at position state * n_parent + parent state; a row is `width` reals, the classes first.
 *
 *   prepare  logits A -> probabilities P over the states and the (quantised) log-probabilities Q that score;
 *            contrast format: P keeps the centred rows in steps, Q their codes times the step
 *   sample   rows of one sample -> its loss, and dLoss/dscores in `score`
 *   update   gradients of a batch -> gradient of one table's logits -> one step of Adam
 *   option   gradient of the weight of one candidate table: sum over the batch of dLoss/dscores . its rows
 */

/* Rounds half to even like rint, but vectorises everywhere; |x| < 2^22. */
EFFML_INLINE REAL NAME(effml_round)(REAL x) {
    const REAL magic = sizeof(REAL) == 4 ? (REAL)12582912.0 : (REAL)6755399441055744.0;
    REAL y = x + magic;
    return y - magic;
}

EFFML_INLINE REAL NAME(effml_level)(const effml_training *t, REAL value) {
    REAL code;
    if (t->format == 1) {
        code = -value * (REAL)(1.0 / t->scale);
        code = code < 0 ? 0 : code;
        code = code > (REAL)t->top ? (REAL)t->top : code;
        return -NAME(effml_round)(code) * (REAL)t->scale;
    }
    return value;
}

EFFML_INLINE void NAME(effml_table)(const effml_training *t, const REAL *A, REAL *P, REAL *Q, ptrdiff_t n_state,
                                    ptrdiff_t n_parent, ptrdiff_t width, REAL *scratch) {
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
}

/* The class prior is one row, normalised over the classes. */
EFFML_INLINE void NAME(effml_prior)(const effml_training *t, const REAL *A, REAL *P, REAL *Q, ptrdiff_t n_class) {
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
EFFML_INLINE void NAME(effml_contrast)(const effml_training *t, const REAL *A, REAL *P, REAL *Q, ptrdiff_t n_row,
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
EFFML_INLINE double NAME(effml_loss)(const effml_training *t, REAL *score, ptrdiff_t y, double weight,
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

EFFML_INLINE void NAME(effml_adam)(const effml_training *t, REAL *A, REAL *M, REAL *V, const REAL *G, ptrdiff_t n,
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

/* dLoss/dlog step of the contrast format (learned step size: inside the range Q/step - v, outside Q/step). */
EFFML_INLINE double NAME(effml_step_gradient)(const effml_training *t, const REAL *P, const REAL *Q, const REAL *G,
                                              ptrdiff_t n) {
    const REAL half = (REAL)(0.5 * t->top);
    REAL total = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        REAL v = P[j], inside = v > half || v < -half ? 0 : v;
        total += G[j] * (Q[j] - inside * (REAL)t->scale);
    }
    return (double)total;
}

static void NAME(effml_prepare)(const effml_training *t, const effml_tables *w, ptrdiff_t first, ptrdiff_t n_state,
                                ptrdiff_t n_parent, int is_prior, void *scratch) {
    const ptrdiff_t at = first * w->width;
    const REAL *A = (const REAL *)w->logits + at;
    REAL *P = (REAL *)w->probabilities + at, *Q = (REAL *)w->scores + at;
    if (t->format == 2) {
        NAME(effml_contrast)(t, A, P, Q, n_state * n_parent, w->n_class, w->width);
    } else if (is_prior) {
        NAME(effml_prior)(t, A, P, Q, w->n_class);
    } else {
        NAME(effml_table)(t, A, P, Q, n_state, n_parent, w->width, (REAL *)scratch);
    }
}

/* rows: one of each table, `stride` apart, negative where the factor is dropped. scratch: width reals. */
static double NAME(effml_sample)(const effml_training *t, const effml_tables *w, const int32_t *rows, ptrdiff_t n_rows,
                                 ptrdiff_t stride, ptrdiff_t y, double weight, void *score_, void *scratch) {
    const REAL *Q = (const REAL *)w->scores;
    const ptrdiff_t width = w->width;
    REAL *score = (REAL *)score_;
    for (ptrdiff_t c = 0; c < width; c++) {
        score[c] = 0;
    }
    for (ptrdiff_t k = 0; k < n_rows; k++) {
        const ptrdiff_t row = rows[k * stride];
        if (row >= 0) {
            const REAL *q = Q + row * width;
            for (ptrdiff_t c = 0; c < width; c++) {
                score[c] += q[c];
            }
        }
    }
    return NAME(effml_loss)(t, score, y, weight, w->n_class, width, (REAL *)scratch);
}

/* rows: this table's row of each sample of the batch. scratch: the table's rows plus one. Returns the gradient of the
 * logarithm of the step (contrast). With rate 0 the gradient of the logits is left in M and nothing else changes. */
static double NAME(effml_update)(const effml_training *t, const effml_tables *w, const void *gradients,
                                 const int32_t *rows, ptrdiff_t n, ptrdiff_t first, ptrdiff_t n_state,
                                 ptrdiff_t n_parent, int is_prior, double rate, double step, void *scratch) {
    const REAL *dS = (const REAL *)gradients;
    const ptrdiff_t width = w->width, size = n_state * n_parent * width, at = first * width;
    REAL *A = (REAL *)w->logits + at, *P = (REAL *)w->probabilities + at, *Q = (REAL *)w->scores + at;
    REAL *M = (REAL *)w->first_moments + at, *V = (REAL *)w->second_moments + at;
    REAL *G = (REAL *)scratch;
    double step_gradient = 0;
    memset(G, 0, (size_t)size * sizeof(REAL));
    for (ptrdiff_t s = 0; s < n; s++) {
        if (rows[s] >= 0) {
            REAL *g = G + (rows[s] - first) * width;
            const REAL *d = dS + s * width;
            for (ptrdiff_t c = 0; c < width; c++) {
                g[c] += d[c];
            }
        }
    }
    if (t->format == 2) {
        step_gradient = NAME(effml_step_gradient)(t, P, Q, G, size);
    } else if (is_prior) {
        REAL sum = 0;
        for (ptrdiff_t c = 0; c < w->n_class; c++) {
            sum += G[c];
        }
        for (ptrdiff_t c = 0; c < w->n_class; c++) {
            G[c] -= P[c] * sum;
        }
    } else {
        NAME(effml_backward)(P, G, n_state, n_parent, width, G + size);
    }
    if (rate > 0) {
        NAME(effml_adam)(t, A, M, V, G, size, rate, step);
    } else {
        memcpy(M, G, (size_t)size * sizeof(REAL));
    }
    return step_gradient;
}

static double NAME(effml_option)(const effml_tables *w, const void *gradients, const int32_t *rows, ptrdiff_t n) {
    const REAL *dS = (const REAL *)gradients, *Q = (const REAL *)w->scores;
    double total = 0;
    for (ptrdiff_t s = 0; s < n; s++) {
        if (rows[s] >= 0) {
            const REAL *q = Q + (ptrdiff_t)rows[s] * w->width, *d = dS + s * w->width;
            REAL dot = 0;
            for (ptrdiff_t c = 0; c < w->n_class; c++) {
                dot += d[c] * q[c];
            }
            total += (double)dot;
        }
    }
    return total;
}
