/* Upper bounds of rho = Q^2 / S over all subsets of a set of rows, from positive v_i with S >= sum of v_i.
 *
 * Rows are bits, sorted by decreasing u (see itemset_search.h). The proofs are those of lemma 2 and the theorem in
 * effml/itemsets/search.py: the maximum over subsets is at a prefix of the rows sorted by s u_i / v_i, for a sign s. */
#ifndef EFFML_ITEMSET_BOUNDS_H
#define EFFML_ITEMSET_BOUNDS_H

#include <math.h>

#include "itemset_search.h"

#define EFFML_BUCKETS 64

static inline double larger(double a, double b)
{
    return a > b ? a : b;
}

/* v = 1, at least `shortest` rows, one sign: the rows come in order already. */
static double prefix_of_sign(const uint64_t *rows, const double *u, int64_t n_words, int64_t shortest, int negative)
{
    double sum = 0, best = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < n_words; ++i) {
        const int64_t word = negative ? n_words - 1 - i : i;
        for (uint64_t bits = rows[word]; bits;) {
            const int bit = negative ? highest_bit(bits) : lowest_bit(bits);
            const double x = negative ? -u[64 * word + bit] : u[64 * word + bit];
            bits ^= (uint64_t)1 << bit;
            if (n >= shortest && x <= 0)
                return best;
            sum += x;
            ++n;
            if (n >= shortest && sum > 0)
                best = larger(best, sum * sum / (double)n);
        }
    }
    return best;
}

/* max over signs s and k >= shortest of T_k^2 / k, T_k = sum of the k largest s u. */
static double prefix_bound(const uint64_t *rows, const double *u, int64_t n_words, int64_t shortest)
{
    return larger(prefix_of_sign(rows, u, n_words, shortest, 0), prefix_of_sign(rows, u, n_words, shortest, 1));
}

/* The larger sum of u^2 / v over the rows of one sign; infinite when some v is not above `least`.
 * top[0], top[1] become the largest u / v and -u / v. */
static double cheap_row_bound(const uint64_t *rows, const double *u, const double *v, int64_t n_words, double least,
                              double top[2])
{
    double sums[2] = {0, 0};
    top[0] = top[1] = 0;
    for (int64_t word = 0; word < n_words; ++word)
        for (uint64_t bits = rows[word]; bits; bits &= bits - 1) {
            const int64_t row = 64 * word + lowest_bit(bits);
            const int sign = u[row] < 0;
            if (!(v[row] > least))
                return INFINITY;
            const double ratio = fabs(u[row]) / v[row];
            sums[sign] += ratio * fabs(u[row]);
            top[sign] = larger(top[sign], ratio);
        }
    return larger(sums[0], sums[1]);
}

/* Bound of max (sum u)^2 / sum v over all sets, from the sums x of u and y of v in buckets of u / v up to `top`.
 *
 * The curve through all prefixes (sum v, sum u), by decreasing u / v, is concave, with slope u / v. Within a bucket it
 * lies under the two lines through the bucket's ends whose slopes are the bucket's edges. (sum u)^2 / sum v is convex,
 * so over the region below these lines it is largest at a corner. */
static double hull_bound(const double *x, const double *y, double top)
{
    const double width = top / EFFML_BUCKETS;
    double sum_x = 0, sum_y = 0, best = 0;
    if (!(width > 0))
        return 0;
    for (int k = EFFML_BUCKETS - 1; k >= 0; --k) {
        const double high = (k + 1) * width, low = k * width;
        if (!(y[k] > 0))
            continue;
        double corner_y = (x[k] + high * sum_y - low * (sum_y + y[k])) / width;
        corner_y = corner_y < sum_y ? sum_y : corner_y > sum_y + y[k] ? sum_y + y[k] : corner_y;
        const double corner_x = sum_x + high * (corner_y - sum_y);
        if (corner_y > 0)
            best = larger(best, corner_x * corner_x / corner_y);
        sum_x += x[k];
        sum_y += y[k];
        best = larger(best, sum_x * sum_x / sum_y);
    }
    return best;
}

/* max over signs s and prefixes of (sum s u)^2 / sum v, with the rows sorted by s u / v into buckets. */
static double prefix_row_bound(const uint64_t *rows, const double *u, const double *v, int64_t n_words,
                               const double top[2])
{
    double x[2][EFFML_BUCKETS] = {{0}}, y[2][EFFML_BUCKETS] = {{0}}, scale[2];
    for (int sign = 0; sign < 2; ++sign)
        scale[sign] = top[sign] > 0 ? EFFML_BUCKETS / top[sign] : 0;
    for (int64_t word = 0; word < n_words; ++word)
        for (uint64_t bits = rows[word]; bits; bits &= bits - 1) {
            const int64_t row = 64 * word + lowest_bit(bits);
            const int sign = u[row] < 0;
            const double place = fabs(u[row]) / v[row] * scale[sign];
            const int bucket = place < EFFML_BUCKETS - 1 ? (int)place : EFFML_BUCKETS - 1;
            x[sign][bucket] += fabs(u[row]);
            y[sign][bucket] += v[row];
        }
    return larger(hull_bound(x[0], y[0], top[0]), hull_bound(x[1], y[1], top[1]));
}

#endif
