/* Products of a few rows with one group of packed weights, in exact integers.
 *
 * Weights are stored so that the lanes of a vector are different outputs: each input word is read once, spread over all
 * lanes and no lane is ever added to another.
 *
 *     bits    8 outputs a group: words [w][8] of 64 bits; out = number of bits that differ
 *     bytes   16 outputs a group: [j / 4][16][4] signed bytes; inputs are unsigned bytes
 *     shorts  16 outputs a group: [j / 2][16][2] signed shorts; inputs are signed shorts
 *
 * Bits go through all groups in one call, since one row alone leaves little work in each. Sums of bytes and shorts wrap at 32 bits; the caller knows that what they stand for does not.
 */
#ifndef EFFML_PACKED_H
#define EFFML_PACKED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#define EFFML_PACKED_X86 1
#include <immintrin.h>
#else
#define EFFML_PACKED_X86 0
#endif

#define EFFML_ROWS 4 /* rows a call may bring: their inputs share one reading of the weights */

/* x: n_rows rows of n_words; w: groups of one plane; out: n_rows x m, set for plane 0, else grown by 2^plane counts */
typedef void (*effml_bits_function)(const uint64_t *x, int n_rows, const uint64_t *w, ptrdiff_t n_words, ptrdiff_t m,
                                    int plane, int32_t *out);
/* x: n_rows rows, `stride` elements apart, of `n` elements (multiple of 4 or 2); out: n_rows x 16 */
typedef void (*effml_bytes_function)(const uint8_t *x, int n_rows, ptrdiff_t stride, const int8_t *w, ptrdiff_t n,
                                     int32_t *out);
typedef void (*effml_shorts_function)(const int16_t *x, int n_rows, ptrdiff_t stride, const int16_t *w, ptrdiff_t n,
                                      int32_t *out);

static inline int32_t effml_count_bits(uint64_t v) {
#if defined(__GNUC__) && !EFFML_PACKED_X86
    return __builtin_popcountll(v);
#else
    v -= (v >> 1) & 0x5555555555555555ULL;
    v = (v & 0x3333333333333333ULL) + ((v >> 2) & 0x3333333333333333ULL);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
    return (int32_t)((v * 0x0101010101010101ULL) >> 56);
#endif
}

/* Take over the counts of a group, of which n <= 8 (or more) outputs exist. */
static inline void effml_put(const int32_t *counts, ptrdiff_t n, int plane, int32_t *out) {
    if (plane == 0 && n >= 8)
        memcpy(out, counts, 8 * sizeof *out);
    else
        for (int k = 0; k < 8 && k < n; k++)
            out[k] = (int32_t)((plane ? (uint32_t)out[k] : 0u) + ((uint32_t)counts[k] << plane));
}

/* A function over all groups from one over a group of up to EFFML_ROWS rows. */
#define EFFML_ALL_GROUPS(NAME, TARGET, GROUP)                                                                          \
    TARGET static void NAME(const uint64_t *x, int n_rows, const uint64_t *w, ptrdiff_t n_words, ptrdiff_t m,          \
                            int plane, int32_t *out) {                                                                 \
        int32_t counts[EFFML_ROWS * 8];                                                                                \
        for (ptrdiff_t first = 0; first < m; first += 8, w += 8 * n_words) {                                           \
            GROUP(x, n_rows, w, n_words, counts);                                                                      \
            for (int r = 0; r < n_rows; r++)                                                                           \
                effml_put(counts + 8 * r, m - first, plane, out + r * m + first);                                      \
        }                                                                                                              \
    }

static inline void effml_group_portable(const uint64_t *x, int n_rows, const uint64_t *w, ptrdiff_t n_words,
                                        int32_t *counts) {
    memset(counts, 0, (size_t)n_rows * 8 * sizeof *counts);
    for (int r = 0; r < n_rows; r++)
        for (ptrdiff_t j = 0; j < n_words; j++)
            for (int k = 0; k < 8; k++)
                counts[r * 8 + k] += effml_count_bits(x[r * n_words + j] ^ w[j * 8 + k]);
}

EFFML_ALL_GROUPS(effml_bits_portable, , effml_group_portable)

static void effml_bytes_portable(const uint8_t *x, int n_rows, ptrdiff_t stride, const int8_t *w, ptrdiff_t n,
                                 int32_t *out) {
    for (int r = 0; r < n_rows; r++) {
        uint32_t sum[16] = {0};
        for (ptrdiff_t j = 0; j < n; j += 4) {
            const uint8_t *xj = x + r * stride + j;
            const int8_t *wj = w + j * 16;
            for (int k = 0; k < 16; k++)
                sum[k] += (uint32_t)(xj[0] * wj[4 * k] + xj[1] * wj[4 * k + 1] + xj[2] * wj[4 * k + 2] +
                                     xj[3] * wj[4 * k + 3]);
        }
        memcpy(out + r * 16, sum, sizeof sum);
    }
}

static void effml_shorts_portable(const int16_t *x, int n_rows, ptrdiff_t stride, const int16_t *w, ptrdiff_t n,
                                  int32_t *out) {
    for (int r = 0; r < n_rows; r++) {
        uint32_t sum[16] = {0};
        for (ptrdiff_t j = 0; j < n; j += 2) {
            const int16_t *xj = x + r * stride + j, *wj = w + j * 16;
            for (int k = 0; k < 16; k++) /* the weights have 9 bits: a pair of products fits 32 */
                sum[k] += (uint32_t)(xj[0] * wj[2 * k] + xj[1] * wj[2 * k + 1]);
        }
        memcpy(out + r * 16, sum, sizeof sum);
    }
}

#if EFFML_PACKED_X86

#define EFFML_INNER static inline __attribute__((always_inline))

#define EFFML_POPCNT_TARGET __attribute__((target("popcnt")))
#define EFFML_AVX2_TARGET __attribute__((target("avx2")))
#define EFFML_VPOPCNT_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512vpopcntdq")))

EFFML_POPCNT_TARGET EFFML_INNER void effml_group_popcnt(const uint64_t *x, int n_rows, const uint64_t *w,
                                                        ptrdiff_t n_words, int32_t *counts) {
    for (int r = 0; r < n_rows; r++) {
        uint64_t sum[8] = {0};
        for (ptrdiff_t j = 0; j < n_words; j++)
            for (int k = 0; k < 8; k++)
                sum[k] += (uint64_t)__builtin_popcountll(x[r * n_words + j] ^ w[j * 8 + k]);
        for (int k = 0; k < 8; k++)
            counts[r * 8 + k] = (int32_t)sum[k];
    }
}

EFFML_ALL_GROUPS(effml_bits_popcnt, EFFML_POPCNT_TARGET, effml_group_popcnt)

/* Bits of bytes by a 16-entry table (Mula, Kurz, Lemire, "Faster population counts using AVX2 instructions", 2018). */
EFFML_AVX2_TARGET EFFML_INNER void effml_group_avx2(const uint64_t *x, int n_rows, const uint64_t *w,
                                                    ptrdiff_t n_words, int32_t *counts) {
    const __m256i bits = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, /* twice */
                                          0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    for (int r = 0; r < n_rows; r++) {
        __m256i total[2] = {zero, zero};
        for (ptrdiff_t j = 0; j < n_words;) {
            const ptrdiff_t end = j + 31 < n_words ? j + 31 : n_words; /* 31 * 8 still fits a byte */
            __m256i sum[2] = {zero, zero};
            for (; j < end; j++) {
                const __m256i xj = _mm256_set1_epi64x((long long)x[r * n_words + j]);
                for (int k = 0; k < 2; k++) {
                    const __m256i v = _mm256_xor_si256(xj, _mm256_loadu_si256((const __m256i *)(w + j * 8 + 4 * k)));
                    const __m256i a = _mm256_shuffle_epi8(bits, _mm256_and_si256(v, low));
                    const __m256i b = _mm256_shuffle_epi8(bits, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
                    sum[k] = _mm256_add_epi8(sum[k], _mm256_add_epi8(a, b));
                }
            }
            for (int k = 0; k < 2; k++)
                total[k] = _mm256_add_epi64(total[k], _mm256_sad_epu8(sum[k], zero));
        }
        for (int k = 0; k < 8; k++)
            counts[r * 8 + k] = (int32_t)((const uint64_t *)&total[k / 4])[k % 4];
    }
}

EFFML_ALL_GROUPS(effml_bits_avx2, EFFML_AVX2_TARGET, effml_group_avx2)

EFFML_VPOPCNT_TARGET EFFML_INNER void effml_rows_avx512(const uint64_t *x, const int n_rows, const uint64_t *w,
                                                        ptrdiff_t n_words, int32_t *counts) {
    __m512i sum[EFFML_ROWS];
    for (int r = 0; r < n_rows; r++)
        sum[r] = _mm512_setzero_si512();
    for (ptrdiff_t j = 0; j < n_words; j++) {
        const __m512i wj = _mm512_loadu_si512(w + j * 8);
        for (int r = 0; r < n_rows; r++) {
            const __m512i v = _mm512_xor_si512(wj, _mm512_set1_epi64((long long)x[r * n_words + j]));
            sum[r] = _mm512_add_epi64(sum[r], _mm512_popcnt_epi64(v));
        }
    }
    for (int r = 0; r < n_rows; r++)
        _mm256_storeu_si256((__m256i *)(counts + r * 8), _mm512_cvtepi64_epi32(sum[r]));
}

EFFML_VPOPCNT_TARGET EFFML_INNER void effml_group_avx512(const uint64_t *x, int n_rows, const uint64_t *w,
                                                         ptrdiff_t n_words, int32_t *counts) {
    if (n_rows == EFFML_ROWS)
        effml_rows_avx512(x, EFFML_ROWS, w, n_words, counts);
    else
        for (int r = 0; r < n_rows; r++)
            effml_rows_avx512(x + r * n_words, 1, w, n_words, counts + r * 8);
}

EFFML_ALL_GROUPS(effml_bits_avx512, EFFML_VPOPCNT_TARGET, effml_group_avx512)

static inline int32_t effml_four_bytes(const void *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return four;
}

__attribute__((target("avx512f,avx512vl,avx512bw,avx512vnni"))) EFFML_INNER void
effml_bytes_rows(const uint8_t *x, const int n_rows, ptrdiff_t stride, const int8_t *w, ptrdiff_t n, int32_t *out) {
    __m512i sum[EFFML_ROWS];
    for (int r = 0; r < n_rows; r++)
        sum[r] = _mm512_setzero_si512();
    for (ptrdiff_t j = 0; j < n; j += 4) {
        const __m512i wj = _mm512_loadu_si512(w + j * 16);
        for (int r = 0; r < n_rows; r++)
            sum[r] = _mm512_dpbusd_epi32(sum[r], _mm512_set1_epi32(effml_four_bytes(x + r * stride + j)), wj);
    }
    for (int r = 0; r < n_rows; r++)
        _mm512_storeu_si512(out + r * 16, sum[r]);
}

__attribute__((target("avx512f,avx512vl,avx512bw,avx512vnni"))) static void
effml_bytes_vnni(const uint8_t *x, int n_rows, ptrdiff_t stride, const int8_t *w, ptrdiff_t n, int32_t *out) {
    if (n_rows == EFFML_ROWS)
        effml_bytes_rows(x, EFFML_ROWS, stride, w, n, out);
    else
        for (int r = 0; r < n_rows; r++)
            effml_bytes_rows(x + r * stride, 1, stride, w, n, out + r * 16);
}

__attribute__((target("avx512f,avx512vl,avx512bw"))) EFFML_INNER void
effml_shorts_rows512(const int16_t *x, const int n_rows, ptrdiff_t stride, const int16_t *w, ptrdiff_t n,
                     int32_t *out) {
    __m512i sum[EFFML_ROWS];
    for (int r = 0; r < n_rows; r++)
        sum[r] = _mm512_setzero_si512();
    for (ptrdiff_t j = 0; j < n; j += 2) {
        const __m512i wj = _mm512_loadu_si512(w + j * 16);
        for (int r = 0; r < n_rows; r++) {
            const __m512i xj = _mm512_set1_epi32(effml_four_bytes(x + r * stride + j));
            sum[r] = _mm512_add_epi32(sum[r], _mm512_madd_epi16(xj, wj));
        }
    }
    for (int r = 0; r < n_rows; r++)
        _mm512_storeu_si512(out + r * 16, sum[r]);
}

__attribute__((target("avx512f,avx512vl,avx512bw"))) static void
effml_shorts_avx512(const int16_t *x, int n_rows, ptrdiff_t stride, const int16_t *w, ptrdiff_t n, int32_t *out) {
    if (n_rows == EFFML_ROWS)
        effml_shorts_rows512(x, EFFML_ROWS, stride, w, n, out);
    else
        for (int r = 0; r < n_rows; r++)
            effml_shorts_rows512(x + r * stride, 1, stride, w, n, out + r * 16);
}

EFFML_AVX2_TARGET EFFML_INNER void effml_shorts_rows256(const int16_t *x, const int n_rows,
                                                                      ptrdiff_t stride, const int16_t *w, ptrdiff_t n,
                                                                      int32_t *out) {
    __m256i sum[EFFML_ROWS][2];
    for (int r = 0; r < n_rows; r++)
        sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (ptrdiff_t j = 0; j < n; j += 2) {
        const __m256i w0 = _mm256_loadu_si256((const __m256i *)(w + j * 16));
        const __m256i w1 = _mm256_loadu_si256((const __m256i *)(w + j * 16 + 16));
        for (int r = 0; r < n_rows; r++) {
            const __m256i xj = _mm256_set1_epi32(effml_four_bytes(x + r * stride + j));
            sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(xj, w0));
            sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(xj, w1));
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int k = 0; k < 2; k++)
            _mm256_storeu_si256((__m256i *)(out + r * 16 + 8 * k), sum[r][k]);
}

EFFML_AVX2_TARGET static void effml_shorts_avx2(const int16_t *x, int n_rows, ptrdiff_t stride,
                                                              const int16_t *w, ptrdiff_t n, int32_t *out) {
    if (n_rows == EFFML_ROWS)
        effml_shorts_rows256(x, EFFML_ROWS, stride, w, n, out);
    else
        for (int r = 0; r < n_rows; r++)
            effml_shorts_rows256(x + r * stride, 1, stride, w, n, out + r * 16);
}

#endif /* EFFML_PACKED_X86 */

enum { EFFML_PORTABLE, EFFML_POPCNT, EFFML_AVX2, EFFML_AVX512 };

/* The best level of this processor. */
static int effml_packed_level(void) {
#if EFFML_PACKED_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni"))
        return EFFML_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return EFFML_AVX2;
    if (__builtin_cpu_supports("popcnt"))
        return EFFML_POPCNT;
#endif
    return EFFML_PORTABLE;
}

/* The functions of a level that the processor has. */
static effml_bits_function effml_find_bits(int level) {
#if EFFML_PACKED_X86
    if (level >= EFFML_AVX512)
        return effml_bits_avx512;
    if (level == EFFML_AVX2)
        return effml_bits_avx2;
    if (level == EFFML_POPCNT)
        return effml_bits_popcnt;
#endif
    return effml_bits_portable;
}

static effml_bytes_function effml_find_bytes(int level) {
#if EFFML_PACKED_X86
    if (level >= EFFML_AVX512)
        return effml_bytes_vnni;
#endif
    return effml_bytes_portable;
}

static effml_shorts_function effml_find_shorts(int level) {
#if EFFML_PACKED_X86
    if (level >= EFFML_AVX512)
        return effml_shorts_avx512;
    if (level == EFFML_AVX2)
        return effml_shorts_avx2;
#endif
    return effml_shorts_portable;
}

#endif
