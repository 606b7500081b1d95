/* The best itemsets found so far, no two of them with the same rows. The order of results: score, then fewer items,
 * then item order; it is total, so what is kept does not depend on the order in which itemsets come. */
#ifndef EFFML_ITEMSET_BEST_H
#define EFFML_ITEMSET_BEST_H

#include <stdint.h>
#include <string.h>

typedef struct {
    int n_found, n_best, max_order;
    int64_t n_words;
    double *values;   /* (n_best, 4): score, rho, Q, S */
    int32_t *sizes;   /* (n_best,) */
    int32_t *itemsets; /* (n_best, max_order), items ascending */
    uint64_t *rows;   /* (n_best, n_words) */
} Best;

typedef struct {
    double values[4];
    int32_t size;
    const int32_t *itemset;
    const uint64_t *rows;
} Candidate;

static inline Candidate found_itemset(const Best *best, int slot)
{
    Candidate one;
    memcpy(one.values, best->values + 4 * slot, sizeof one.values);
    one.size = best->sizes[slot];
    one.itemset = best->itemsets + slot * best->max_order;
    one.rows = best->rows + slot * best->n_words;
    return one;
}

static int precedes(const Candidate *a, const Candidate *b)
{
    if (a->values[0] != b->values[0])
        return a->values[0] > b->values[0];
    if (a->size != b->size)
        return a->size < b->size;
    for (int k = 0; k < a->size; ++k)
        if (a->itemset[k] != b->itemset[k])
            return a->itemset[k] < b->itemset[k];
    return 0;
}

/* The slot of an itemset of the same rows, else a free one, else the one that goes last. */
static int slot_for(const Best *best, const Candidate *one)
{
    int last = 0;
    for (int slot = 0; slot < best->n_found; ++slot) /* same rows, same Q: the sum has one order */
        if (best->values[4 * slot + 2] == one->values[2] &&
            !memcmp(best->rows + slot * best->n_words, one->rows, best->n_words * sizeof(uint64_t)))
            return slot;
    if (best->n_found < best->n_best)
        return best->n_found;
    for (int slot = 1; slot < best->n_found; ++slot) {
        const Candidate a = found_itemset(best, last), b = found_itemset(best, slot);
        if (precedes(&a, &b))
            last = slot;
    }
    return last;
}

/* Take an itemset if it is one of the best; its items ascend. Returns whether it was taken. */
static int take(Best *best, const Candidate *one)
{
    const int slot = slot_for(best, one);
    if (slot < best->n_found) {
        const Candidate there = found_itemset(best, slot);
        if (!precedes(one, &there))
            return 0;
    } else
        best->n_found = slot + 1;
    memcpy(best->values + 4 * slot, one->values, sizeof one->values);
    best->sizes[slot] = one->size;
    memcpy(best->itemsets + slot * best->max_order, one->itemset, one->size * sizeof(int32_t));
    memcpy(best->rows + slot * best->n_words, one->rows, best->n_words * sizeof(uint64_t));
    return 1;
}

/* The score that another itemset must reach: that of the last one of a full list. */
static double required_score(const Best *best, double unless_full)
{
    if (best->n_found < best->n_best)
        return unless_full;
    double lowest = best->values[0];
    for (int slot = 1; slot < best->n_found; ++slot)
        if (best->values[4 * slot] < lowest)
            lowest = best->values[4 * slot];
    return lowest;
}

static void ascending(const int32_t *itemset, int size, int32_t *out)
{
    for (int i = 0; i < size; ++i) {
        int k = i;
        for (; k > 0 && out[k - 1] > itemset[i]; --k)
            out[k] = out[k - 1];
        out[k] = itemset[i];
    }
}

#endif
