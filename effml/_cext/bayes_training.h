/* The four phases of a training step of a Bayesian network classifier, for one real type and instruction set.
 *
 * Included by bayes_phases.h with REAL, EXP, SQRT and NAME(x) defined. A table is a block of consecutive rows, one per
 * (state, parent state), at position state * n_parent + parent state; a row is `n_class` reals. Scores of a sample are
 * `width` reals, whole registers: a row is read, and its gradient written, that wide. What comes in from the next row (or
 * from the slack behind the last one) is set to the lowest score, and what goes out to it is 0.
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

/* Sum and maximum in lanes: the same order on every instruction set. The maximum takes a multiple of EFFML_LANES. */
EFFML_INLINE REAL NAME(effml_sum)(const REAL *x, ptrdiff_t n) {
    REAL lane[EFFML_LANES] = {0}, total = 0;
    ptrdiff_t j = 0;
    for (; j + EFFML_LANES <= n; j += EFFML_LANES) {
        for (int k = 0; k < EFFML_LANES; k++) {
            lane[k] += x[j + k];
        }
    }
    for (int k = 0; k < EFFML_LANES; k++) {
        total += lane[k];
    }
    for (; j < n; j++) {
        total += x[j];
    }
    return total;
}

EFFML_INLINE REAL NAME(effml_max)(const REAL *x, ptrdiff_t n) {
    REAL lane[EFFML_LANES], highest;
    for (int k = 0; k < EFFML_LANES; k++) {
        lane[k] = x[k];
    }
    for (ptrdiff_t j = EFFML_LANES; j < n; j += EFFML_LANES) {
        for (int k = 0; k < EFFML_LANES; k++) {
            lane[k] = x[j + k] > lane[k] ? x[j + k] : lane[k];
        }
    }
    highest = lane[0];
    for (int k = 1; k < EFFML_LANES; k++) {
        highest = lane[k] > highest ? lane[k] : highest;
    }
    return highest;
}

/* Log-probability -> the nearest multiple of -scale, at least -top * scale. */
EFFML_INLINE REAL NAME(effml_level)(REAL value, REAL inverse, REAL scale, REAL top) {
    REAL code = -value * inverse;
    code = code < 0 ? 0 : code;
    code = code > top ? top : code;
    return -NAME(effml_round)(code) * scale;
}

/* `n` neighbouring columns of a table, at most EFFML_COLUMNS; a column is one (parent state, class), its states are
 * `stride` apart. */
EFFML_INLINE void NAME(effml_columns)(const effml_training *t, const REAL *__restrict A, REAL *__restrict P,
                                      REAL *__restrict Q, ptrdiff_t n_state, ptrdiff_t stride, ptrdiff_t n) {
    REAL high[EFFML_COLUMNS], sum[EFFML_COLUMNS];
    const int is_float = t->format != 1;
    const REAL inverse = (REAL)(1.0 / t->scale), scale = (REAL)t->scale, top = (REAL)t->top;
    for (ptrdiff_t c = 0; c < n; c++) {
        high[c] = A[c];
        sum[c] = 0;
    }
    for (ptrdiff_t k = 1; k < n_state; k++) {
        const REAL *a = A + k * stride;
        for (ptrdiff_t c = 0; c < n; c++) {
            high[c] = a[c] > high[c] ? a[c] : high[c];
        }
    }
    for (ptrdiff_t k = 0; k < n_state; k++) {
        const REAL *a = A + k * stride;
        REAL *e = P + k * stride;
        for (ptrdiff_t c = 0; c < n; c++) {
            REAL value = EXP(a[c] - high[c]);
            e[c] = value;
            sum[c] += value;
        }
    }
    for (ptrdiff_t c = 0; c < n; c++) {
        high[c] += LOG(sum[c]);
        sum[c] = 1 / sum[c];
    }
    for (ptrdiff_t k = 0; k < n_state; k++) {
        const REAL *a = A + k * stride;
        REAL *e = P + k * stride, *q = Q + k * stride;
        for (ptrdiff_t c = 0; c < n; c++) {
            e[c] *= sum[c];
        }
        if (is_float) {
            for (ptrdiff_t c = 0; c < n; c++) {
                q[c] = a[c] - high[c];
            }
        } else {
            for (ptrdiff_t c = 0; c < n; c++) {
                q[c] = NAME(effml_level)(a[c] - high[c], inverse, scale, top);
            }
        }
    }
}

EFFML_INLINE void NAME(effml_table)(const effml_training *t, const REAL *A, REAL *P, REAL *Q, ptrdiff_t n_state,
                                    ptrdiff_t stride) {
    for (ptrdiff_t j = 0; j < stride; j += EFFML_COLUMNS) {
        const ptrdiff_t n = stride - j < EFFML_COLUMNS ? stride - j : EFFML_COLUMNS;
        NAME(effml_columns)(t, A + j, P + j, Q + j, n_state, stride, n);
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
    high += LOG(sum);
    for (ptrdiff_t c = 0; c < n_class; c++) {
        P[c] /= sum;
        Q[c] = A[c] - high;
        if (t->format == 1) {
            Q[c] = NAME(effml_level)(Q[c], (REAL)(1.0 / t->scale), (REAL)t->scale, (REAL)t->top);
        }
    }
}

/* Contrast rows: centred over the classes, mid-rise codes of one step; P keeps the centred values in steps. */
EFFML_INLINE void NAME(effml_contrast)(const effml_training *t, const REAL *__restrict A, REAL *__restrict P,
                                       REAL *__restrict Q, ptrdiff_t n_row, ptrdiff_t n_class) {
    const REAL half = (REAL)(0.5 * t->top), inverse = (REAL)(1.0 / t->scale), step = (REAL)t->scale;
    const REAL top = (REAL)t->top, share = (REAL)(1.0 / (double)n_class);
    for (ptrdiff_t row = 0; row < n_row; row++) {
        const REAL *a = A + row * n_class;
        const REAL mean = NAME(effml_sum)(a, n_class) * share;
        for (ptrdiff_t c = 0; c < n_class; c++) {
            P[row * n_class + c] = (a[c] - mean) * inverse;
        }
    }
    for (ptrdiff_t j = 0; j < n_row * n_class; j++) {
        REAL code = P[j] + half;
        code = code < 0 ? 0 : code;
        code = code > top ? top : code;
        Q[j] = (NAME(effml_round)(code) - half) * step;
    }
}

/* Returns the loss of one sample and replaces the scores by their gradient; scratch: width. */
EFFML_INLINE double NAME(effml_loss)(const effml_training *t, REAL *__restrict score, ptrdiff_t y, double weight,
                                     ptrdiff_t n_class, ptrdiff_t width, REAL *__restrict scratch) {
    const REAL own = score[y], w = (REAL)weight, lowest = (REAL)-1e30;
    double loss = t->generative * -(double)own;
    REAL own_gradient = -(REAL)t->generative;
    for (ptrdiff_t c = 0; c < width; c++) {
        scratch[c] = 0;
    }
    for (ptrdiff_t c = n_class; c < width; c++) {
        score[c] = lowest;
    }
    if (t->margin_weight > 0 && n_class > 1) {
        const REAL sharpness = (REAL)t->sharpness;
        REAL high, sum, m;
        score[y] = lowest;
        high = NAME(effml_max)(score, width);
        for (ptrdiff_t c = 0; c < width; c++) {
            scratch[c] = EXP(sharpness * (score[c] - high));
        }
        scratch[y] = 0;
        score[y] = own;
        for (ptrdiff_t c = n_class; c < width; c++) {
            scratch[c] = 0;
        }
        sum = NAME(effml_sum)(scratch, width);
        m = ((REAL)t->margin - own + high) + LOG(sum) / sharpness;
        if (m > 0) {
            loss += t->margin_weight * (double)m;
            own_gradient -= (REAL)t->margin_weight;
        }
        sum = m > 0 ? (REAL)t->margin_weight / sum : 0;
        for (ptrdiff_t c = 0; c < width; c++) {
            scratch[c] *= sum;
        }
    }
    if (t->cross_entropy > 0 && n_class > 1) {
        const REAL high = NAME(effml_max)(score, width);
        REAL sum;
        for (ptrdiff_t c = 0; c < width; c++) {
            score[c] = EXP(score[c] - high);
        }
        for (ptrdiff_t c = n_class; c < width; c++) {
            score[c] = 0;
        }
        sum = NAME(effml_sum)(score, width);
        loss += t->cross_entropy * ((double)high + (double)LOG(sum) - (double)own);
        own_gradient -= (REAL)t->cross_entropy;
        sum = (REAL)t->cross_entropy / sum;
        for (ptrdiff_t c = 0; c < width; c++) {
            scratch[c] += sum * score[c];
        }
    }
    scratch[y] += own_gradient;
    for (ptrdiff_t c = 0; c < width; c++) {
        score[c] = scratch[c] * w;
    }
    return loss * weight;
}

/* G by table rows -> G by logits, a block of columns as above: dA = G - P * (sum of G over the states). */
EFFML_INLINE void NAME(effml_project)(const REAL *__restrict P, REAL *__restrict G, ptrdiff_t n_state, ptrdiff_t stride,
                                      ptrdiff_t n) {
    REAL sum[EFFML_COLUMNS];
    for (ptrdiff_t c = 0; c < n; c++) {
        sum[c] = G[c];
    }
    for (ptrdiff_t k = 1; k < n_state; k++) {
        for (ptrdiff_t c = 0; c < n; c++) {
            sum[c] += G[k * stride + c];
        }
    }
    for (ptrdiff_t k = 0; k < n_state; k++) {
        for (ptrdiff_t c = 0; c < n; c++) {
            G[k * stride + c] -= P[k * stride + c] * sum[c];
        }
    }
}

EFFML_INLINE void NAME(effml_backward)(const REAL *P, REAL *G, ptrdiff_t n_state, ptrdiff_t stride) {
    ptrdiff_t j = 0;
    for (; j + EFFML_COLUMNS <= stride; j += EFFML_COLUMNS) {
        NAME(effml_project)(P + j, G + j, n_state, stride, EFFML_COLUMNS);
    }
    if (j < stride) {
        NAME(effml_project)(P + j, G + j, n_state, stride, stride - j);
    }
}

EFFML_INLINE void NAME(effml_adam)(const effml_training *t, REAL *__restrict A, REAL *__restrict M,
                                   REAL *__restrict V, const REAL *__restrict G, ptrdiff_t n, double rate,
                                   double step) {
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
    const REAL half = (REAL)(0.5 * t->top), scale = (REAL)t->scale;
    REAL lane[EFFML_LANES] = {0}, tail = 0;
    ptrdiff_t j = 0;
    for (; j + EFFML_LANES <= n; j += EFFML_LANES) {
        for (int k = 0; k < EFFML_LANES; k++) {
            REAL v = P[j + k], inside = v > half || v < -half ? 0 : v;
            lane[k] += G[j + k] * (Q[j + k] - inside * scale);
        }
    }
    for (; j < n; j++) {
        REAL v = P[j], inside = v > half || v < -half ? 0 : v;
        tail += G[j] * (Q[j] - inside * scale);
    }
    return (double)(NAME(effml_sum)(lane, EFFML_LANES) + tail);
}

static void NAME(effml_prepare)(const effml_training *t, const effml_tables *w, ptrdiff_t first, ptrdiff_t n_state,
                                ptrdiff_t n_parent, int is_prior, void *scratch) {
    const ptrdiff_t at = first * w->n_class;
    const REAL *A = (const REAL *)w->logits + at;
    REAL *P = (REAL *)w->probabilities + at, *Q = (REAL *)w->scores + at;
    (void)scratch;
    if (t->format == 2) {
        NAME(effml_contrast)(t, A, P, Q, n_state * n_parent, w->n_class);
    } else if (is_prior) {
        NAME(effml_prior)(t, A, P, Q, w->n_class);
    } else {
        NAME(effml_table)(t, A, P, Q, n_state, n_parent * w->n_class);
    }
}

/* score = sum of the rows, negative row numbers left out; four rows at a time, added one after the other, as the sums
 * go through memory. */
EFFML_INLINE void NAME(effml_gather)(const REAL *Q, const int32_t *rows, ptrdiff_t n_rows, ptrdiff_t stride,
                                     REAL *__restrict score, ptrdiff_t n_class, ptrdiff_t width) {
    const REAL *next[4];
    int n_next = 0;
    for (ptrdiff_t c = 0; c < width; c++) {
        score[c] = 0;
    }
    for (ptrdiff_t k = 0; k < n_rows; k++) {
        const ptrdiff_t row = rows[k * stride];
        if (row >= 0) {
            next[n_next++] = Q + row * n_class;
        }
        if (n_next == 4) {
            EFFML_WHOLE_LOOP
            for (ptrdiff_t c = 0; c < width; c++) {
                score[c] = (((score[c] + next[0][c]) + next[1][c]) + next[2][c]) + next[3][c];
            }
            n_next = 0;
        }
    }
    for (int k = 0; k < n_next; k++) {
        EFFML_WHOLE_LOOP
        for (ptrdiff_t c = 0; c < width; c++) {
            score[c] += next[k][c];
        }
    }
}

/* G[rows[s] - first] += dS[s] */
EFFML_INLINE void NAME(effml_scatter)(REAL *__restrict G, const REAL *__restrict dS, const int32_t *rows, ptrdiff_t n,
                                      ptrdiff_t first, ptrdiff_t n_class, ptrdiff_t width) {
    for (ptrdiff_t s = 0; s < n; s++) {
        if (rows[s] >= 0) {
            REAL *g = G + (rows[s] - first) * n_class;
            EFFML_WHOLE_LOOP
            for (ptrdiff_t c = 0; c < width; c++) {
                g[c] += dS[s * width + c];
            }
        }
    }
}

/* rows: one of each table, `stride` apart, negative where the factor is dropped. scratch: width reals. */
static double NAME(effml_sample)(const effml_training *t, const effml_tables *w, const int32_t *rows, ptrdiff_t n_rows,
                                 ptrdiff_t stride, ptrdiff_t y, double weight, void *score_, void *scratch) {
    const REAL *Q = (const REAL *)w->scores;
    REAL *score = (REAL *)score_;
    const ptrdiff_t n = w->n_class;
    switch (w->width) { /* constant widths: the loop over the classes unrolls into whole registers */
    case 8: NAME(effml_gather)(Q, rows, n_rows, stride, score, n, 8); break;
    case 16: NAME(effml_gather)(Q, rows, n_rows, stride, score, n, 16); break;
    case 24: NAME(effml_gather)(Q, rows, n_rows, stride, score, n, 24); break;
    case 32: NAME(effml_gather)(Q, rows, n_rows, stride, score, n, 32); break;
    default: NAME(effml_gather)(Q, rows, n_rows, stride, score, n, w->width);
    }
    return NAME(effml_loss)(t, score, y, weight, w->n_class, w->width, (REAL *)scratch);
}

/* rows: this table's row of each sample of the batch. scratch: the table and `width` reals. Returns the gradient of the
 * logarithm of the step (contrast). With rate 0 the gradient of the logits is left in M and nothing else changes. */
static double NAME(effml_update)(const effml_training *t, const effml_tables *w, const void *gradients,
                                 const int32_t *rows, ptrdiff_t n, ptrdiff_t first, ptrdiff_t n_state,
                                 ptrdiff_t n_parent, int is_prior, double rate, double step, void *scratch) {
    const REAL *dS = (const REAL *)gradients;
    const ptrdiff_t n_class = w->n_class, size = n_state * n_parent * n_class, at = first * n_class;
    REAL *A = (REAL *)w->logits + at, *P = (REAL *)w->probabilities + at, *Q = (REAL *)w->scores + at;
    REAL *M = (REAL *)w->first_moments + at, *V = (REAL *)w->second_moments + at;
    REAL *G = (REAL *)scratch;
    double step_gradient = 0;
    memset(G, 0, (size_t)size * sizeof(REAL));
    switch (w->width) {
    case 8: NAME(effml_scatter)(G, dS, rows, n, first, n_class, 8); break;
    case 16: NAME(effml_scatter)(G, dS, rows, n, first, n_class, 16); break;
    case 24: NAME(effml_scatter)(G, dS, rows, n, first, n_class, 24); break;
    case 32: NAME(effml_scatter)(G, dS, rows, n, first, n_class, 32); break;
    default: NAME(effml_scatter)(G, dS, rows, n, first, n_class, w->width);
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
        NAME(effml_backward)(P, G, n_state, n_parent * n_class);
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
            const REAL *q = Q + (ptrdiff_t)rows[s] * w->n_class, *d = dS + s * w->width;
            REAL dot = 0;
            for (ptrdiff_t c = 0; c < w->n_class; c++) {
                dot += d[c] * q[c];
            }
            total += (double)dot;
        }
    }
    return total;
}
