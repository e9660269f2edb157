/* Causal attention within the segments of a pack, bf16 on AMX tiles: FlashAttention-2's way (Dao 2023) of keeping only
   the logarithms of the sums and forming the scores again on the way back.

   Rows hold Q query heads, K key heads and K value heads of width D side by side, not yet turned by their position
   (RoPE): turning happens where rows are copied for the products. Work is parted by segment and key head, whose Q / K
   query heads share the packed keys and values; no two parts write to the same place, so results do not depend on the
   number of threads. Queries go by strips of 32; a strip's scores lie in one buffer, keys beyond the diagonal or the
   window are neither multiplied nor read. */

#include <math.h>
#include <omp.h>

#include "tiles.h"

#ifdef HAVE_TILES

enum { BLOCK = 256 }; /* queries whose shares are kept before they are added to the gradients of keys and values */

typedef struct {
    const bf16 *qkv;
    const float *cosine, *sine; /* (M, D / 2), or neither */
    int64_t queries, keys, width, window;
    float scale;
} Heads;

/* Which of the places [at, at + 16) lie in [from, to). */
static inline __mmask16 within(int64_t at, int64_t from, int64_t to) {
    int64_t low = from - at, high = to - at;
    uint32_t below = low <= 0 ? 0 : low >= 16 ? 0xffff : (1u << low) - 1;
    uint32_t upto = high <= 0 ? 0 : high >= 16 ? 0xffff : (1u << high) - 1;
    return (__mmask16)(upto & ~below);
}

/* One head of 32 rows from row m on to `to` (32, D), turned if `turned`; those from `rows` on are 0. */
static void copy_head(const Heads *heads, int64_t head, int64_t m, int64_t rows, int turned, bf16 *to) {
    int64_t width = heads->width, half = width / 2, stride = (heads->queries + 2 * heads->keys) * width;
    const bf16 *from = heads->qkv + m * stride + head * width;
    for (int64_t i = 0; i < rows; i++, from += stride, to += width) {
        for (int64_t d = 0; d < width; d += 32) /* the next strip's, which no prefetcher foresees */
            _mm_prefetch((const char *)(from + STRIP * stride + d), _MM_HINT_T0);
        if (!turned || !heads->cosine) {
            memcpy(to, from, width * sizeof(bf16));
            continue;
        }
        const float *cosine = heads->cosine + (m + i) * half, *sine = heads->sine + (m + i) * half;
        for (int64_t d = 0; d < half; d += 16) {
            __m512 a = widen(_mm256_loadu_si256((const void *)(from + d)));
            __m512 b = widen(_mm256_loadu_si256((const void *)(from + half + d)));
            __m512 c = _mm512_loadu_ps(cosine + d), s = _mm512_loadu_ps(sine + d);
            __m512i both = narrow(_mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)), _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
            _mm256_storeu_si256((void *)(to + d), _mm512_castsi512_si256(both));
            _mm256_storeu_si256((void *)(to + half + d), _mm512_extracti64x4_epi64(both, 1));
        }
    }
    memset(to, 0, (STRIP - rows) * width * sizeof(bf16));
}

/* The way back: a head's sums (32, D) to `to`, turned the other way if `turned`. */
static void put_head(const Heads *heads, bf16 *qkv, int64_t head, int64_t m, int64_t rows, int turned, const float *from) {
    int64_t width = heads->width, half = width / 2, stride = (heads->queries + 2 * heads->keys) * width;
    bf16 *to = qkv + m * stride + head * width;
    for (int64_t i = 0; i < rows; i++, from += width, to += stride)
        for (int64_t d = 0; d < half; d += 16) {
            __m512 a = _mm512_loadu_ps(from + d), b = _mm512_loadu_ps(from + half + d);
            if (turned && heads->cosine) {
                __m512 c = _mm512_loadu_ps(heads->cosine + (m + i) * half + d);
                __m512 s = _mm512_loadu_ps(heads->sine + (m + i) * half + d), first = a;
                a = _mm512_fmadd_ps(a, c, _mm512_mul_ps(b, s));
                b = _mm512_fmsub_ps(b, c, _mm512_mul_ps(first, s));
            }
            __m512i both = narrow(a, b);
            _mm256_storeu_si256((void *)(to + d), _mm512_castsi512_si256(both));
            _mm256_storeu_si256((void *)(to + half + d), _mm512_extracti64x4_epi64(both, 1));
        }
}

/* 32 rows (32, D) as 32 columns of a right side with D steps: what scores need of keys. */
static void pack_across(const bf16 *rows, int64_t width, bf16 *panel) {
    for (int64_t d = 0; d < width; d += STEP)
        for (int t = 0; t < 2; t++)
            pack_columns(rows + t * TILE * width + d, width, panel + d * 32 + t * TILE_NUMBERS);
}

/* 32 rows as 32 steps of a right side with D columns: panels of 32 columns and `steps` steps, of which these are those
   from `at` on. What sums over keys need. */
static void pack_along(const bf16 *rows, int64_t width, int64_t steps, int64_t at, bf16 *panels) {
    for (int64_t d = 0; d < width; d += TILE)
        pack_rows(rows + d, width, panels + d / 32 * 32 * steps + at * 32 + d % 32 / TILE * TILE_NUMBERS);
}

/* The first key that queries from i on may see, rounded down to a whole strip. */
static inline int64_t first_key(int64_t i, int64_t window) {
    return window && i + 1 > window ? (i + 1 - window) / STRIP * STRIP : 0;
}

/* scores (32, to - from) = queries (32, D) times the packed keys of that span. */
static void score(const bf16 *left, const bf16 *panels, int64_t width, int64_t from, int64_t to, float *scores) {
    for (int64_t j = from; j < to; j += STRIP) {
        clear_sums();
        multiply(left, width, panels + j * width, width, 1);
        store_sums(scores + j - from, to - from);
    }
}

/* sums (32, D) = left (32, to - from) times those steps of panels that have `steps` in all. */
static void gather(const bf16 *left, const bf16 *panels, int64_t steps, int64_t from, int64_t to, int64_t width, float *sums) {
    for (int64_t d = 0; d < width; d += 32) {
        clear_sums();
        multiply(left, to - from, panels + d * steps + from * 32, to - from, 1);
        store_sums(sums + d, width);
    }
}

/* A row of scores for keys [from, to), of which [first, last) are seen, to e^(scale (score - top)) in bf16; gives their
   sum, and the logarithm of the sum of e^(scale score) in `log_sum`. */
static float soften(const float *scores, bf16 *shares, int64_t from, int64_t to, int64_t first, int64_t last, float scale,
                    float *log_sum) {
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t j = from; j < to; j += 16)
        most = _mm512_mask_max_ps(most, within(j, first, last), most, _mm512_load_ps(scores + j - from));
    float top = _mm512_reduce_max_ps(most) * scale;
    __m512 by = _mm512_set1_ps(scale * LOG2_E), less = _mm512_set1_ps(top * LOG2_E);
    for (int64_t j = from; j < to; j += 32) {
        __m512 e[2];
        for (int t = 0; t < 2; t++) {
            __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + j - from + 16 * t), by, less);
            e[t] = _mm512_maskz_mov_ps(within(j + 16 * t, first, last), power_of_2(x));
            sum = _mm512_add_ps(sum, e[t]);
        }
        _mm512_store_si512(shares + j - from, narrow(e[0], e[1]));
    }
    float whole = _mm512_reduce_add_ps(sum);
    *log_sum = top + logf(whole);
    return whole;
}

enum { KEYS, VALUES, KEYS_ALONG, SCORES, GRADIENTS, SHARES, SHARES_ALONG, GRADIENTS_ALONG, TO_KEYS, TO_VALUES, FLIPPED };

static void attend_part(const Heads *heads, int64_t start, int64_t head, int64_t first, int64_t last, bf16 *out,
                        int64_t out_stride, float *log_sums) {
    int64_t width = heads->width, group = heads->queries / heads->keys, low = first_key(first, heads->window);
    int64_t count = up_to(last - low, STRIP);
    bf16 *keys = thread_room(KEYS, count * width * 2), *values = thread_room(VALUES, count * width * 2);
    float *scores = thread_room(SCORES, STRIP * count * 4);
    bf16 *shares = thread_room(SHARES, STRIP * count * 2);
    bf16 rows[STRIP * width] __attribute__((aligned(64)));
    float sums[STRIP * width] __attribute__((aligned(64)));
    for (int64_t j = 0; j < count; j += STRIP) {
        int64_t m = start + low + j, held = least(STRIP, last - low - j);
        copy_head(heads, heads->queries + head, m, held, 1, rows);
        pack_across(rows, width, keys + j * width);
        copy_head(heads, heads->queries + heads->keys + head, m, held, 0, rows);
        pack_along(rows, width, count, j, values);
    }
    for (int64_t h = head * group; h < (head + 1) * group; h++)
        for (int64_t i = first; i < last; i += STRIP) {
            int64_t held = least(STRIP, last - i), from = first_key(i, heads->window), to = up_to(i + held, STRIP);
            float share[STRIP];
            copy_head(heads, h, start + i, held, 1, rows);
            score(rows, keys, width, from - low, to - low, scores);
            for (int64_t r = 0; r < STRIP; r++) {
                int64_t row = least(i + r, last - 1), seen = heads->window ? row + 1 - heads->window : 0;
                float log_sum;
                share[r] = 1.0f / soften(scores + r * (to - from), shares + r * (to - from), from, to, seen, row + 1,
                                         heads->scale, &log_sum);
                if (r < held) log_sums[(start + i + r) * heads->queries + h] = log_sum;
            }
            gather(shares, values, count, from - low, to - low, width, sums);
            for (int64_t r = 0; r < held; r++) {
                bf16 *place = out + (start + i + r) * out_stride + h * width;
                __m512 by = _mm512_set1_ps(share[r]);
                for (int64_t d = 0; d < width; d += 32)
                    _mm512_storeu_si512(place + d, narrow(_mm512_mul_ps(_mm512_load_ps(sums + r * width + d), by),
                                                          _mm512_mul_ps(_mm512_load_ps(sums + r * width + d + 16), by)));
            }
        }
}

/* out (M, Q D), rows may lie apart, and log_sums (M, Q) from qkv (M, (Q + 2 K) D). `starts` are the boundaries of the
   segments; a query sees keys up to itself, `window` of them at most (0: all). */
void attend(const bf16 *qkv, const float *cosine, const float *sine, const int32_t *starts, int64_t segments, bf16 *out,
            int64_t out_stride, float *log_sums, int64_t Q, int64_t K, int64_t D, float scale, int64_t window) {
    const Heads heads = {qkv, cosine, sine, Q, K, D, window, scale};
    int64_t longest = 0;
    for (int64_t s = 0; s < segments; s++)
        if (starts[s + 1] - starts[s] > longest) longest = starts[s + 1] - starts[s];
    int64_t blocks = (longest + BLOCK - 1) / BLOCK;
#pragma omp parallel
    {
        tiles_begin();
#pragma omp for schedule(dynamic, 1)
        for (int64_t part = 0; part < segments * blocks * K; part++) {
            int64_t s = part / K % segments, first = part / K / segments * BLOCK, length = starts[s + 1] - starts[s];
            if (first < length)
                attend_part(&heads, starts[s], part % K, first, least(first + BLOCK, length), out, out_stride, log_sums);
        }
        tiles_end();
    }
}

/* Two rows of scores and of the gradients of shares, for keys [from, to), to shares and gradients of scores in bf16:
   side by side, as right sides want them, and those of scores in rows as well. */
static void harden(const float *scores, const float *grads, int64_t from, int64_t to, const int64_t first[2],
                   const int64_t last[2], const float log_sum[2], const float dot[2], float scale, bf16 *shares_along,
                   bf16 *grads_along, int64_t panel, bf16 *grad_rows) {
    int64_t count = to - from;
    __m512 by = _mm512_set1_ps(scale * LOG2_E), times = _mm512_set1_ps(scale);
    for (int64_t j = 0; j < count; j += 16) {
        __m512 share[2], grad[2];
        for (int r = 0; r < 2; r++) {
            __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + r * count + j), by, _mm512_set1_ps(log_sum[r] * LOG2_E));
            share[r] = _mm512_maskz_mov_ps(within(from + j, first[r], last[r]), power_of_2(x));
            __m512 apart = _mm512_sub_ps(_mm512_load_ps(grads + r * count + j), _mm512_set1_ps(dot[r]));
            grad[r] = _mm512_mul_ps(_mm512_mul_ps(share[r], apart), times);
            _mm256_store_si256((void *)(grad_rows + r * count + j), (__m256i)_mm512_cvtneps_pbh(grad[r]));
        }
        int64_t place = j / 32 * panel + j % 32 / TILE * TILE_NUMBERS;
        __m512i both = narrow(share[0], share[1]);
        _mm512_store_si512(shares_along + place, interleave(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1)));
        both = narrow(grad[0], grad[1]);
        _mm512_store_si512(grads_along + place, interleave(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1)));
    }
}

static float dot_product(const bf16 *a, const bf16 *b, int64_t width) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t d = 0; d < width; d += 16)
        sum = _mm512_fmadd_ps(widen(_mm256_loadu_si256((const void *)(a + d))),
                              widen(_mm256_loadu_si256((const void *)(b + d))), sum);
    return _mm512_reduce_add_ps(sum);
}

typedef struct {
    const bf16 *out, *d_out;
    int64_t out_stride, d_out_stride;
    const float *log_sums;
    bf16 *d_qkv;
} Way;

static void attend_back(const Heads *heads, const Way *way, int64_t start, int64_t length, int64_t head) {
    int64_t width = heads->width, group = heads->queries / heads->keys, count = up_to(length, STRIP);
    int64_t key_head = heads->queries + head, value_head = key_head + heads->keys;
    bf16 *keys = thread_room(KEYS, count * width * 2), *values = thread_room(VALUES, count * width * 2);
    bf16 *keys_along = thread_room(KEYS_ALONG, count * width * 2);
    float *to_keys = thread_room(TO_KEYS, count * width * 4), *to_values = thread_room(TO_VALUES, count * width * 4);
    float *scores = thread_room(SCORES, STRIP * count * 4), *grads = thread_room(GRADIENTS, STRIP * count * 4);
    bf16 *grad_rows = thread_room(SHARES, STRIP * count * 2);
    bf16 *shares_along = thread_room(SHARES_ALONG, BLOCK * count * 2);
    bf16 *grads_along = thread_room(GRADIENTS_ALONG, BLOCK * count * 2);
    bf16 *flipped = thread_room(FLIPPED, 2 * BLOCK * width * 2), *flipped_out = flipped + BLOCK * width;
    bf16 rows[STRIP * width] __attribute__((aligned(64))), out_rows[STRIP * width] __attribute__((aligned(64)));
    float sums[STRIP * width] __attribute__((aligned(64)));
    memset(to_keys, 0, count * width * 4);
    memset(to_values, 0, count * width * 4);
    for (int64_t j = 0; j < count; j += STRIP) {
        int64_t held = least(STRIP, length - j);
        copy_head(heads, key_head, start + j, held, 1, rows);
        pack_across(rows, width, keys + j * width);
        pack_along(rows, width, count, j, keys_along);
        copy_head(heads, value_head, start + j, held, 0, rows);
        pack_across(rows, width, values + j * width);
    }
    for (int64_t b = 0; b < length; b += BLOCK)
        for (int64_t h = head * group; h < (head + 1) * group; h++) {
            int64_t end = least(b + BLOCK, length), low = first_key(b, heads->window), high = up_to(end, STRIP);
            for (int64_t i = b; i < end; i += STRIP) {
                int64_t held = least(STRIP, end - i), from = first_key(i, heads->window), to = up_to(i + held, STRIP);
                copy_head(heads, h, start + i, held, 1, rows);
                flip(rows, width, width, flipped + i - b, BLOCK);
                for (int64_t r = 0; r < held; r++) {
                    const bf16 *from_row = way->d_out + (start + i + r) * way->d_out_stride + h * width;
                    const bf16 *out_row = way->out + (start + i + r) * way->out_stride + h * width;
                    for (int64_t d = 0; d < width; d += 32) { /* the next strip's */
                        _mm_prefetch((const char *)(from_row + STRIP * way->d_out_stride + d), _MM_HINT_T0);
                        _mm_prefetch((const char *)(out_row + STRIP * way->out_stride + d), _MM_HINT_T0);
                    }
                    memcpy(out_rows + r * width, from_row, width * 2);
                }
                memset(out_rows + held * width, 0, (STRIP - held) * width * 2);
                flip(out_rows, width, width, flipped_out + i - b, BLOCK);
                score(rows, keys, width, from, to, scores);
                score(out_rows, values, width, from, to, grads);
                for (int64_t r = 0; r < STRIP; r += 2) {
                    int64_t first[2], last[2];
                    float log_sum[2], dot[2];
                    for (int t = 0; t < 2; t++) {
                        int64_t row = start + i + least(r + t, held - 1);
                        first[t] = heads->window ? i + r + t + 1 - heads->window : 0;
                        last[t] = r + t < held ? i + r + t + 1 : 0;
                        log_sum[t] = way->log_sums[row * heads->queries + h];
                        dot[t] = dot_product(out_rows + (r + t) * width, way->out + row * way->out_stride + h * width, width);
                    }
                    int64_t place = (from - low) * BLOCK + (i - b) * 32 + r / 2 * 32;
                    harden(scores + r * (to - from), grads + r * (to - from), from, to, first, last, log_sum, dot,
                           heads->scale, shares_along + place, grads_along + place, BLOCK * 32,
                           grad_rows + r * (to - from));
                }
                gather(grad_rows, keys_along, count, from, to, width, sums);
                put_head(heads, way->d_qkv, h, start + i, held, 1, sums);
            }
            for (int64_t j = low; j < high; j += STRIP) {
                int64_t from = j > b ? j - b : 0, to = from; /* the queries of this block that see these keys */
                while (to < high - b && first_key(b + to, heads->window) <= j) to += STRIP;
                int64_t place = (j - low) * BLOCK + from * 32;
                for (int64_t d = 0; d < width; d += 32) {
                    load_sums(to_values + d * count + j, count);
                    multiply(flipped_out + d * BLOCK + from, BLOCK, shares_along + place, to - from, 1);
                    store_sums(to_values + d * count + j, count);
                    load_sums(to_keys + d * count + j, count);
                    multiply(flipped + d * BLOCK + from, BLOCK, grads_along + place, to - from, 1);
                    store_sums(to_keys + d * count + j, count);
                }
            }
        }
    for (int64_t j = 0; j < length; j += STRIP)
        for (int which = 0; which < 2; which++) {
            const float *from = which ? to_values : to_keys;
            for (int64_t d = 0; d < width; d += TILE)
                for (int t = 0; t < 2; t++) {
                    __m512i r[16];
                    for (int i = 0; i < 16; i++) r[i] = _mm512_load_si512(from + (d + i) * count + j + t * TILE);
                    transpose(r);
                    for (int i = 0; i < 16; i++) _mm512_store_si512(sums + (t * TILE + i) * width + d, r[i]);
                }
            put_head(heads, way->d_qkv, which ? value_head : key_head, start + j, least(STRIP, length - j), !which, sums);
        }
}

/* d_qkv (M, (Q + 2 K) D) from d_out (M, Q D), rows of it and of out may lie apart. */
void attend_backward(const bf16 *qkv, const float *cosine, const float *sine, const int32_t *starts, int64_t segments,
                     const bf16 *out, int64_t out_stride, const bf16 *d_out, int64_t d_out_stride,
                     const float *log_sums, bf16 *d_qkv, int64_t Q, int64_t K, int64_t D, float scale, int64_t window) {
    const Heads heads = {qkv, cosine, sine, Q, K, D, window, scale};
    const Way way = {out, d_out, out_stride, d_out_stride, log_sums, d_qkv};
#pragma omp parallel
    {
        tiles_begin();
#pragma omp for schedule(dynamic, 1)
        for (int64_t part = 0; part < segments * K; part++)
            attend_back(&heads, &way, starts[part / K], starts[part / K + 1] - starts[part / K], part % K);
        tiles_end();
    }
}

#endif
