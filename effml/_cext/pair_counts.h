/* Counts of rows shared by bit columns: out[i, j] = popcount(a[i] & b[j]).
 *
 * Four versions of one function; the caller takes the best that the processor offers at run time, so the build needs
 * no machine flag. All give the same integers.
 *
 * a, b    bit columns, one every `stride` 64-bit words; bits past the last row are zero
 * n_a     columns of a, at most COUNT_A_MAX
 * n_b     columns of b; up to COUNT_B_PAD - 1 more are read and written, so both sides keep that padding
 * n_words words in use per column; words up to the next multiple of 8 are zero and may be read (stride % 8 == 0)
 */
#ifndef EFFML_PAIR_COUNTS_H
#define EFFML_PAIR_COUNTS_H

#include <stdint.h>

#define COUNT_A_MAX 3
#define COUNT_B_PAD 8

typedef void (*count_kernel)(const uint64_t *a, int n_a, const uint64_t *b, int n_b, int64_t n_words, int64_t stride,
                             int32_t *out, int64_t out_stride);

#if defined(__x86_64__) && defined(__GNUC__)
#define EFFML_X86 1
#include <immintrin.h>
#else
#define EFFML_X86 0
#endif

static inline int popcount_word(uint64_t x)
{
#if defined(__GNUC__) && !EFFML_X86
    return __builtin_popcountll(x);
#else
    x -= (x >> 1) & 0x5555555555555555ULL;
    x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
    return (int)((x * 0x0101010101010101ULL) >> 56);
#endif
}

static void count_portable(const uint64_t *a, int n_a, const uint64_t *b, int n_b, int64_t n_words, int64_t stride,
                           int32_t *out, int64_t out_stride)
{
    for (int i = 0; i < n_a; ++i)
        for (int j = 0; j < n_b; ++j) {
            const uint64_t *x = a + i * stride, *y = b + j * stride;
            int64_t sum = 0;
            for (int64_t w = 0; w < n_words; ++w)
                sum += popcount_word(x[w] & y[w]);
            out[i * out_stride + j] = (int32_t)sum;
        }
}

#if EFFML_X86

__attribute__((target("popcnt"))) static void count_popcnt(const uint64_t *a, int n_a, const uint64_t *b, int n_b,
                                                           int64_t n_words, int64_t stride, int32_t *out,
                                                           int64_t out_stride)
{
    for (int j = 0; j < n_b; j += 2)
        for (int i = 0; i < n_a; ++i) {
            const uint64_t *x = a + i * stride, *y = b + j * stride, *z = y + stride;
            int64_t y_sum = 0, z_sum = 0;
            for (int64_t w = 0; w < n_words; ++w) {
                y_sum += __builtin_popcountll(x[w] & y[w]);
                z_sum += __builtin_popcountll(x[w] & z[w]);
            }
            out[i * out_stride + j] = (int32_t)y_sum;
            out[i * out_stride + j + 1] = (int32_t)z_sum;
        }
}

/* Bytes by a 16-entry table (Mula, Kurz, Lemire, "Faster population counts using AVX2 instructions", 2018). */
__attribute__((target("avx2"))) static void count_avx2(const uint64_t *a, int n_a, const uint64_t *b, int n_b,
                                                       int64_t n_words, int64_t stride, int32_t *out,
                                                       int64_t out_stride)
{
    const __m256i nibble_counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, /* twice */
                                                   0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    for (int j = 0; j < n_b; j += 4)
        for (int i = 0; i < n_a; ++i) {
            const uint64_t *x = a + i * stride, *y = b + j * stride;
            __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                              _mm256_setzero_si256()};
            for (int64_t w = 0; w < n_words; w += 4) {
                const __m256i xw = _mm256_loadu_si256((const __m256i *)(x + w));
                for (int k = 0; k < 4; ++k) {
                    const __m256i v = _mm256_and_si256(xw, _mm256_loadu_si256((const __m256i *)(y + k * stride + w)));
                    const __m256i lo = _mm256_shuffle_epi8(nibble_counts, _mm256_and_si256(v, low));
                    const __m256i hi =
                        _mm256_shuffle_epi8(nibble_counts, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
                    sum[k] = _mm256_add_epi64(
                        sum[k], _mm256_sad_epu8(_mm256_add_epi8(lo, hi), _mm256_setzero_si256()));
                }
            }
            for (int k = 0; k < 4; ++k) {
                const __m128i half =
                    _mm_add_epi64(_mm256_castsi256_si128(sum[k]), _mm256_extracti128_si256(sum[k], 1));
                out[i * out_stride + j + k] = (int32_t)(_mm_cvtsi128_si64(half) + _mm_extract_epi64(half, 1));
            }
        }
}

#define EFFML_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512vpopcntdq")))

/* The eight lane sums of eight vectors, in order. */
EFFML_AVX512 static inline __m256i lane_sums(const __m512i v[8])
{
    __m512i pair[4], quad[2];
    for (int k = 0; k < 4; ++k)
        pair[k] = _mm512_add_epi64(_mm512_unpacklo_epi64(v[2 * k], v[2 * k + 1]),
                                   _mm512_unpackhi_epi64(v[2 * k], v[2 * k + 1]));
    for (int k = 0; k < 2; ++k) {
        const __m512i even = _mm512_shuffle_i64x2(pair[2 * k], pair[2 * k + 1], 0x88);
        const __m512i odd = _mm512_shuffle_i64x2(pair[2 * k], pair[2 * k + 1], 0xdd);
        quad[k] = _mm512_add_epi64(even, odd);
    }
    const __m512i all = _mm512_add_epi64(_mm512_shuffle_i64x2(quad[0], quad[1], 0x88),
                                         _mm512_shuffle_i64x2(quad[0], quad[1], 0xdd));
    return _mm512_cvtepi64_epi32(all);
}

EFFML_AVX512 __attribute__((always_inline)) static inline void
count_avx512_rows(const uint64_t *a, const int n_a, const uint64_t *b, int n_b, int64_t n_words, int64_t stride,
                  int32_t *out, int64_t out_stride)
{
    for (int j = 0; j < n_b; j += 8) {
        const uint64_t *y = b + j * stride;
        __m512i sum[COUNT_A_MAX][8];
        for (int i = 0; i < n_a; ++i)
            for (int k = 0; k < 8; ++k)
                sum[i][k] = _mm512_setzero_si512();
        for (int64_t w = 0; w < n_words; w += 8) {
            __m512i x[COUNT_A_MAX];
            for (int i = 0; i < n_a; ++i)
                x[i] = _mm512_loadu_si512(a + i * stride + w);
            for (int k = 0; k < 8; ++k) {
                const __m512i v = _mm512_loadu_si512(y + k * stride + w);
                for (int i = 0; i < n_a; ++i)
                    sum[i][k] = _mm512_add_epi64(sum[i][k], _mm512_popcnt_epi64(_mm512_and_si512(x[i], v)));
            }
        }
        for (int i = 0; i < n_a; ++i)
            _mm256_storeu_si256((__m256i *)(out + i * out_stride + j), lane_sums(sum[i]));
    }
}

EFFML_AVX512 static void count_avx512(const uint64_t *a, int n_a, const uint64_t *b, int n_b, int64_t n_words,
                                      int64_t stride, int32_t *out, int64_t out_stride)
{
    if (n_a == 3)
        count_avx512_rows(a, 3, b, n_b, n_words, stride, out, out_stride);
    else if (n_a == 2)
        count_avx512_rows(a, 2, b, n_b, n_words, stride, out, out_stride);
    else if (n_a == 1)
        count_avx512_rows(a, 1, b, n_b, n_words, stride, out, out_stride);
}

#endif /* EFFML_X86 */

enum { KERNEL_PORTABLE, KERNEL_POPCNT, KERNEL_AVX2, KERNEL_AVX512, N_KERNELS };

/* The kernel of that number, or NULL where this processor (or this build) lacks it. */
static count_kernel find_kernel(int number)
{
    if (number == KERNEL_PORTABLE)
        return count_portable;
#if EFFML_X86
    __builtin_cpu_init();
    if (number == KERNEL_POPCNT && __builtin_cpu_supports("popcnt"))
        return count_popcnt;
    if (number == KERNEL_AVX2 && __builtin_cpu_supports("avx2"))
        return count_avx2;
    if (number == KERNEL_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vpopcntdq"))
        return count_avx512;
#endif
    return 0;
}

/* Bit k of the result: codes[k] == value, for the first n <= 64 codes. */
static inline uint64_t equal_bits_u8(const uint8_t *codes, int n, uint8_t value)
{
    uint64_t bits = 0;
    int k = 0;
#if EFFML_X86 /* SSE2 is part of x86-64 */
    const __m128i v = _mm_set1_epi8((char)value);
    for (; k + 16 <= n; k += 16) {
        const __m128i x = _mm_loadu_si128((const __m128i *)(codes + k));
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(x, v)) << k;
    }
#endif
    for (; k < n; ++k)
        bits |= (uint64_t)(codes[k] == value) << k;
    return bits;
}

static inline uint64_t equal_bits_u16(const uint16_t *codes, int n, uint16_t value)
{
    uint64_t bits = 0;
    int k = 0;
#if EFFML_X86
    const __m128i v = _mm_set1_epi16((short)value);
    for (; k + 16 <= n; k += 16) {
        const __m128i x = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *)(codes + k)), v);
        const __m128i y = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *)(codes + k + 8)), v);
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_packs_epi16(x, y)) << k;
    }
#endif
    for (; k < n; ++k)
        bits |= (uint64_t)(codes[k] == value) << k;
    return bits;
}

/* Position of the lowest set bit; bits != 0. */
static inline int lowest_bit(uint64_t bits)
{
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int k = 0;
    for (; !(bits & 1); bits >>= 1)
        ++k;
    return k;
#endif
}

#endif
