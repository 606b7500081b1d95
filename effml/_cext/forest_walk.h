/* A block of rows through many trees: the tops of the trees for 32 rows at once, the rest split by split.
 *
 * Every split of a tree's top, up to five levels, is tested for all rows: a true test clears the bits of the exits on its
 * left in the row's mask, so that the lowest bit left is the exit that the row takes. What is below is walked, eight
 * rows side by side, since one row alone waits for memory at every split. Integers only: every instruction set gives the
 * same sums. Wider ones are chosen at run time.
 */
#ifndef EFFML_FOREST_WALK_H
#define EFFML_FOREST_WALK_H

#include <stddef.h>
#include <stdint.h>

enum { EFFML_TOP_ROWS = 32, EFFML_TOP_EXITS = 32, EFFML_SIDE_BY_SIDE = 8, EFFML_LANES = 8 };

/* Goes right, to child[1], if the key in the column is larger; a leaf leads to itself. */
typedef struct {
    int32_t threshold, column, child[2];
} effml_node;

/* Split of a top; `keep` has the bits of the exits that a row which goes right may still take. */
typedef struct {
    int32_t threshold, column;
    uint32_t keep;
} effml_top;

typedef struct {
    const effml_node *nodes;
    int32_t n_splits; /* nodes from here on are leaves */
    const effml_top *tops;
    const int64_t *first_top; /* n_trees + 1 */
    const int32_t *exits;     /* n_trees * EFFML_TOP_EXITS nodes */
    ptrdiff_t n_trees;
    const int32_t *leaf;        /* row of the values, or the output of a vote */
    const int16_t *narrow;      /* n_values * padded, or NULL */
    const int32_t *wide;        /* n_values * padded, or NULL; neither: votes */
    ptrdiff_t n_outputs, padded; /* outputs, and to a multiple of EFFML_LANES unless there is one */
} effml_forest;

#if defined(__GNUC__)
#define EFFML_INLINE static inline __attribute__((always_inline))
#define EFFML_LOWEST_BIT(bits) __builtin_ctz(bits)
#define EFFML_PREFETCH(address) __builtin_prefetch(address)
#else
#define EFFML_INLINE static inline
#define EFFML_PREFETCH(address) ((void)(address))
static int EFFML_LOWEST_BIT(uint32_t bits) {
    int place = 0;
    for (; !(bits & 1u); bits >>= 1) {
        place++;
    }
    return place;
}
#endif

#if defined(__GNUC__)
typedef int32_t effml_int_lanes __attribute__((vector_size(32), aligned(4)));

/* The exits left to 32 rows after every split of a top. */
EFFML_INLINE void effml_test_top(const effml_top *top, const effml_top *end, const int32_t *keys, uint32_t *left) {
    effml_int_lanes a = {-1, -1, -1, -1, -1, -1, -1, -1}, b = a, c = a, d = a;
    for (; top < end; top++) {
        const effml_int_lanes *x = (const effml_int_lanes *)(keys + top->column);
        const int32_t t = top->threshold, keep = (int32_t)top->keep;
        a &= (x[0] <= t) | keep;
        b &= (x[1] <= t) | keep;
        c &= (x[2] <= t) | keep;
        d &= (x[3] <= t) | keep;
    }
    effml_int_lanes *out = (effml_int_lanes *)left;
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}
#else
static void effml_test_top(const effml_top *top, const effml_top *end, const int32_t *keys, uint32_t *left) {
    for (int k = 0; k < EFFML_TOP_ROWS; k++) {
        left[k] = UINT32_MAX;
        for (const effml_top *t = top; t < end; t++) {
            left[k] &= keys[t->column + k] > t->threshold ? t->keep : UINT32_MAX;
        }
    }
}
#endif

/* The node at which each of 32 rows leaves the top of a tree. */
EFFML_INLINE void effml_pass_top(const effml_forest *forest, ptrdiff_t tree, const int32_t *keys, int32_t *at) {
    uint32_t left[EFFML_TOP_ROWS];
    const int32_t *exits = forest->exits + tree * EFFML_TOP_EXITS;
    effml_test_top(forest->tops + forest->first_top[tree], forest->tops + forest->first_top[tree + 1], keys, left);
    for (int k = 0; k < EFFML_TOP_ROWS; k++) {
        at[k] = exits[EFFML_LOWEST_BIT(left[k])];
    }
}

EFFML_INLINE void effml_walk_down(const effml_forest *forest, const int32_t *keys, int32_t *at) {
    int32_t lowest;
    do {
        lowest = INT32_MAX;
        for (int k = 0; k < EFFML_SIDE_BY_SIDE; k++) {
            const effml_node *node = &forest->nodes[at[k]];
            at[k] = node->child[keys[node->column + k] > node->threshold];
            lowest = at[k] < lowest ? at[k] : lowest;
        }
    } while (lowest < forest->n_splits);
}

/* From leaves to what they add, which is on its way from memory while other rows are walked. */
EFFML_INLINE void effml_find_values(const effml_forest *forest, int32_t *at) {
    for (int k = 0; k < EFFML_SIDE_BY_SIDE; k++) {
        at[k] = forest->leaf[at[k] - forest->n_splits];
        if (forest->narrow != NULL && forest->n_outputs > 1) {
            EFFML_PREFETCH(forest->narrow + at[k] * forest->padded);
        }
    }
}

EFFML_INLINE void effml_add_leaf(const effml_forest *forest, int32_t row, uint32_t *sums) {
    if (forest->narrow == NULL && forest->wide == NULL) {
        sums[row] += 1;
    } else if (forest->n_outputs == 1) {
        sums[0] += (uint32_t)(forest->narrow != NULL ? forest->narrow[row] : forest->wide[row]);
    } else if (forest->narrow != NULL) {
        const int16_t *value = forest->narrow + row * forest->padded;
        for (ptrdiff_t c = 0; c < forest->padded; c += EFFML_LANES) {
            for (int j = 0; j < EFFML_LANES; j++) {
                sums[c + j] += (uint32_t)value[c + j];
            }
        }
    } else {
        const int32_t *value = forest->wide + row * forest->padded;
        for (ptrdiff_t c = 0; c < forest->padded; c += EFFML_LANES) {
            for (int j = 0; j < EFFML_LANES; j++) {
                sums[c + j] += (uint32_t)value[c + j];
            }
        }
    }
}

/* keys: column by column, `stride` rows each, a multiple of 32; rows past n_rows may hold anything and are not added. */
EFFML_INLINE void effml_walk_block_body(const effml_forest *forest, const int32_t *keys, ptrdiff_t n_rows,
                                        uint32_t *sums) {
    int32_t at[EFFML_TOP_ROWS];
    for (ptrdiff_t tree = 0; tree < forest->n_trees; tree++) {
        for (ptrdiff_t begin = 0; begin < n_rows; begin += EFFML_TOP_ROWS) {
            const ptrdiff_t n = n_rows - begin < EFFML_TOP_ROWS ? n_rows - begin : EFFML_TOP_ROWS;
            effml_pass_top(forest, tree, keys + begin, at);
            for (ptrdiff_t k = 0; k < n; k += EFFML_SIDE_BY_SIDE) {
                effml_walk_down(forest, keys + begin + k, at + k);
                effml_find_values(forest, at + k);
            }
            for (ptrdiff_t k = 0; k < n; k++) {
                effml_add_leaf(forest, at[k], sums + (begin + k) * forest->padded);
            }
        }
    }
}

static void effml_walk_block_portable(const effml_forest *forest, const int32_t *keys, ptrdiff_t n_rows,
                                      uint32_t *sums) {
    effml_walk_block_body(forest, keys, n_rows, sums);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) static void effml_walk_block_avx2(const effml_forest *forest, const int32_t *keys,
                                                                  ptrdiff_t n_rows, uint32_t *sums) {
    effml_walk_block_body(forest, keys, n_rows, sums);
}

__attribute__((target("avx512f,avx512vl,avx512bw,prefer-vector-width=512"))) static void effml_walk_block_avx512(
    const effml_forest *forest, const int32_t *keys, ptrdiff_t n_rows, uint32_t *sums) {
    effml_walk_block_body(forest, keys, n_rows, sums);
}
#endif

typedef void (*effml_walk_block)(const effml_forest *, const int32_t *, ptrdiff_t, uint32_t *);

/* level 0: no special instructions, 1: up to AVX2, 2: up to AVX-512; tests compare them. */
static effml_walk_block effml_choose_walk_block(int level) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (level > 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
        return effml_walk_block_avx512;
    }
    if (level > 0 && __builtin_cpu_supports("avx2")) {
        return effml_walk_block_avx2;
    }
#endif
    (void)level;
    return effml_walk_block_portable;
}

/* How many levels of a tree to test for all rows: fewer where there are four lanes only. */
static int effml_top_levels(void) {
    return effml_choose_walk_block(1) == effml_walk_block_portable ? 3 : 5;
}

#endif
