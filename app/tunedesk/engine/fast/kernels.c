/* The loops between the matrix products of a training step, each one pass over memory. Built by native.py with the C
   compiler that is there; kernels.py does the same in plain torch. The file includes itself once per number format:
   T is the type in memory, LD and ST convert to and from float. All arithmetic is in float.

   Names: M rows (tokens), H width of the residual, I width of the feed-forward, D width of a head.
   A "slot" is a row of a segment that is padded to its length L; slot arrays have one int32 per slot. */

#ifndef T

#ifdef __AVX512BW__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#define PARALLEL _Pragma("omp parallel for schedule(static)")
#define SIMD _Pragma("omp simd")
#define SIMD_SUM(v) SIMD_SUM_(omp simd reduction(+ : v))
#define SIMD_SUM_(x) _Pragma(#x)
#define SIMD_MAX(v) SIMD_SUM_(omp simd reduction(max : v))

static inline float from_bf16(uint16_t value) {
    union { uint32_t bits; float number; } u = {.bits = (uint32_t)value << 16};
    return u.number;
}

static inline uint16_t to_bf16(float number) { /* to nearest, ties to even */
    union { float number; uint32_t bits; } u = {.number = number};
    return (uint16_t)((u.bits + 0x7fffu + ((u.bits >> 16) & 1u)) >> 16);
}

/* e^x within 2 units in the last place for x in [-87, 88]; smaller x and NaN give about 0. Vectorises: the two
   comparisons are written as the processor's own maximum and minimum. */
static inline float quick_exp(float x) {
    x = x > -87.0f ? x : -87.0f;
    x = x < 88.0f ? x : 88.0f;
    union { float number; int32_t bits; } n, scale;
    n.number = x * 1.44269504f + 12582912.0f; /* rounds to an integer in the low bits */
    float whole = n.number - 12582912.0f;
    float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    scale.bits = (n.bits + 127) << 23;
    return p * scale.number;
}

static inline uint32_t mixed(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

static const float NF4[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
    0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

/* Looks up both halves of each byte, as many bytes as whole vectors hold; gives their number. */
static inline int64_t spread_bf16(const uint8_t *from, int64_t bytes, const uint16_t table[16], uint16_t *to) {
    int64_t i = 0;
#ifdef __AVX512BW__
    __m512i values = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)table));
    for (; i + 16 <= bytes; i += 16) {
        __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(from + i)));
        __m512i low = _mm512_slli_epi32(_mm512_and_si512(wide, _mm512_set1_epi32(15)), 16);
        __m512i places = _mm512_or_si512(_mm512_srli_epi32(wide, 4), low);
        _mm512_storeu_si512(to + 2 * i, _mm512_permutexvar_epi16(places, values));
    }
#else
    (void)from, (void)bytes, (void)table, (void)to;
#endif
    return i;
}

static inline int64_t spread_f32(const uint8_t *from, int64_t bytes, const float table[16], float *to) {
    (void)from, (void)bytes, (void)table, (void)to;
    return 0;
}

/* The whole vectors around a span of a row of L: loops over them need no slow last part. */
#define WHOLE_DOWN(from) ((from) & ~(int64_t)31)
#define WHOLE_UP(to, L) (((to) + 31 & ~(int64_t)31) < (L) ? ((to) + 31 & ~(int64_t)31) : (L))

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(a) JOIN(a, SUFFIX)

#define T float
#define SUFFIX f32
#define LD(v) (v)
#define ST(v) (v)
#include "kernels.c"
#undef T
#undef SUFFIX
#undef LD
#undef ST

#define T uint16_t
#define SUFFIX bf16
#define LD(v) from_bf16(v)
#define ST(v) to_bf16(v)
#include "kernels.c"

#else

/* sum = x + add (when there is an add); y = sum / rms(sum) * weight; rstd = 1 / rms. `plus` is 1 where the weight is
   stored less one (Gemma). */
void NAME(norm_forward)(const T *x, const T *add, const T *weight, T *sum, T *y, int64_t y_stride, float *rstd,
                        int64_t M, int64_t H, float eps, float plus) {
    PARALLEL for (int64_t m = 0; m < M; m++) {
        const T *row = x + m * H;
        if (add) {
            const T *other = add + m * H;
            T *both = sum + m * H;
            SIMD for (int64_t i = 0; i < H; i++) both[i] = ST(LD(row[i]) + LD(other[i]));
            row = both;
        }
        float square = 0;
        SIMD_SUM(square) for (int64_t i = 0; i < H; i++) square += LD(row[i]) * LD(row[i]);
        float r = 1.0f / sqrtf(square / (float)H + eps);
        rstd[m] = r;
        T *out = y + m * y_stride;
        SIMD for (int64_t i = 0; i < H; i++) out[i] = ST(LD(row[i]) * r * (LD(weight[i]) + plus));
    }
}

/* dx = add + the gradient through the norm; y is formed again beside it. */
void NAME(norm_backward)(const T *dy, int64_t dy_stride, const T *x, const T *weight, const float *rstd, const T *add,
                         T *dx, int64_t M, int64_t H, float plus) {
    PARALLEL for (int64_t m = 0; m < M; m++) {
        const T *g = dy + m * dy_stride, *row = x + m * H, *more = add + m * H;
        T *out = dx + m * H;
        float r = rstd[m], dot = 0;
        SIMD_SUM(dot) for (int64_t i = 0; i < H; i++) dot += LD(g[i]) * (LD(weight[i]) + plus) * LD(row[i]);
        float share = dot * r * r / (float)H;
        SIMD for (int64_t i = 0; i < H; i++)
            out[i] = ST(LD(more[i]) + r * (LD(g[i]) * (LD(weight[i]) + plus) - LD(row[i]) * share));
    }
}

/* out = silu(gate) * up, where a row of gu holds gate and up side by side. */
void NAME(swiglu_forward)(const T *gu, T *out, int64_t out_stride, int64_t M, int64_t I) {
    PARALLEL for (int64_t m = 0; m < M; m++) {
        const T *gate = gu + m * 2 * I, *up = gate + I;
        T *row = out + m * out_stride;
        SIMD for (int64_t i = 0; i < I; i++) {
            float g = LD(gate[i]);
            row[i] = ST(g / (1.0f + quick_exp(-g)) * LD(up[i]));
        }
    }
}

/* Replaces gate and up by their gradients; forms the output again in `out`. */
void NAME(swiglu_backward)(T *gu, const T *d, int64_t d_stride, T *out, int64_t out_stride, int64_t M, int64_t I) {
    PARALLEL for (int64_t m = 0; m < M; m++) {
        T *gate = gu + m * 2 * I, *up = gate + I, *row = out + m * out_stride;
        const T *grad = d + m * d_stride;
        SIMD for (int64_t i = 0; i < I; i++) {
            float g = LD(gate[i]), u = LD(up[i]), go = LD(grad[i]);
            float sigmoid = 1.0f / (1.0f + quick_exp(-g)), silu = g * sigmoid;
            row[i] = ST(silu * u);
            gate[i] = ST(go * u * (sigmoid + silu * (1.0f - sigmoid)));
            up[i] = ST(go * silu);
        }
    }
}

/* Rows of q, k and v side by side to heads of padded segments, q and k turned by their position (RoPE, halves).
   cosine and sine are (M, D / 2); without them nothing is turned. */
void NAME(split_heads)(const T *qkv, const float *cosine, const float *sine, T *q, T *k, T *v, const int32_t *token,
                       const int32_t *base, const int32_t *length, const int32_t *place, int64_t slots, int64_t Q,
                       int64_t K, int64_t D) {
    int64_t half = D / 2;
    PARALLEL for (int64_t s = 0; s < slots; s++) {
        int64_t L = length[s], t = place[s], m = token[s];
        for (int64_t h = 0; h < Q + 2 * K; h++) {
            T *to = h < Q ? q + ((int64_t)base[s] * Q + h * L + t) * D
                          : (h < Q + K ? k + ((int64_t)base[s] * K + (h - Q) * L + t) * D
                                       : v + ((int64_t)base[s] * K + (h - Q - K) * L + t) * D);
            if (m < 0) {
                memset(to, 0, D * sizeof(T));
                continue;
            }
            const T *from = qkv + (m * (Q + 2 * K) + h) * D;
            if (h >= Q + K || !cosine) {
                memcpy(to, from, D * sizeof(T));
                continue;
            }
            const float *c = cosine + m * half, *n = sine + m * half;
            SIMD for (int64_t i = 0; i < half; i++) {
                float a = LD(from[i]), b = LD(from[half + i]);
                to[i] = ST(a * c[i] - b * n[i]);
                to[half + i] = ST(b * c[i] + a * n[i]);
            }
        }
    }
}

/* The way back of split_heads, turned the other way. */
void NAME(join_heads)(T *qkv, const float *cosine, const float *sine, const T *q, const T *k, const T *v,
                      const int32_t *token, const int32_t *base, const int32_t *length, const int32_t *place,
                      int64_t slots, int64_t Q, int64_t K, int64_t D) {
    int64_t half = D / 2;
    PARALLEL for (int64_t s = 0; s < slots; s++) {
        int64_t L = length[s], t = place[s], m = token[s];
        for (int64_t h = 0; m >= 0 && h < Q + 2 * K; h++) {
            const T *from = h < Q ? q + ((int64_t)base[s] * Q + h * L + t) * D
                                  : (h < Q + K ? k + ((int64_t)base[s] * K + (h - Q) * L + t) * D
                                               : v + ((int64_t)base[s] * K + (h - Q - K) * L + t) * D);
            T *to = qkv + (m * (Q + 2 * K) + h) * D;
            if (h >= Q + K || !cosine) {
                memcpy(to, from, D * sizeof(T));
                continue;
            }
            const float *c = cosine + m * half, *n = sine + m * half;
            SIMD for (int64_t i = 0; i < half; i++) {
                float a = LD(from[i]), b = LD(from[half + i]);
                to[i] = ST(a * c[i] + b * n[i]);
                to[half + i] = ST(b * c[i] - a * n[i]);
            }
        }
    }
}

/* Heads of padded segments back to rows of `rows`. */
void NAME(scatter_heads)(const T *heads, T *rows, int64_t stride, const int32_t *token, const int32_t *base,
                         const int32_t *length, const int32_t *place, int64_t slots, int64_t Q, int64_t D) {
    PARALLEL for (int64_t s = 0; s < slots; s++)
        for (int64_t h = 0; token[s] >= 0 && h < Q; h++)
            memcpy(rows + token[s] * stride + h * D,
                   heads + ((int64_t)base[s] * Q + (int64_t)h * length[s] + place[s]) * D, D * sizeof(T));
}

/* Rows to heads of padded segments, and the dot product of each with the same head of `other`. */
void NAME(gather_heads)(const T *rows, int64_t stride, const T *other, int64_t other_stride, T *heads, float *dots,
                        const int32_t *token, const int32_t *base, const int32_t *length, const int32_t *place,
                        int64_t slots, int64_t Q, int64_t D) {
    PARALLEL for (int64_t s = 0; s < slots; s++)
        for (int64_t h = 0; h < Q; h++) {
            int64_t where = (int64_t)base[s] * Q + (int64_t)h * length[s] + place[s], m = token[s];
            float dot = 0;
            if (m < 0) {
                memset(heads + where * D, 0, D * sizeof(T));
            } else {
                const T *a = rows + m * stride + h * D, *b = other + m * other_stride + h * D;
                SIMD_SUM(dot) for (int64_t i = 0; i < D; i++) dot += LD(a[i]) * LD(b[i]);
                memcpy(heads + where * D, a, D * sizeof(T));
            }
            dots[where] = dot;
        }
}

/* Scores (heads, rows, L) to shares in place. Row i stands for query first + i and sees keys up to itself, `window` of
   them at most (0: all); log_sum is (heads, rows). */
void NAME(softmax_forward)(T *scores, float *log_sum, int64_t heads, int64_t rows, int64_t L, int64_t first,
                           float scale, int64_t window) {
    PARALLEL for (int64_t n = 0; n < heads * rows; n++) {
        int64_t i = first + n % rows, from = window && i + 1 > window ? i + 1 - window : 0, to = i + 1;
        T *row = scores + n * L;
        int64_t low = WHOLE_DOWN(from), high = WHOLE_UP(to, L);
        float top = -INFINITY, sum = 0;
        SIMD_MAX(top) for (int64_t j = low; j < high; j++) {
            float s = j >= from && j < to ? LD(row[j]) : -INFINITY;
            top = s > top ? s : top;
        }
        SIMD_SUM(sum) for (int64_t j = low; j < high; j++) {
            float e = quick_exp((LD(row[j]) - top) * scale);
            sum += j >= from && j < to ? e : 0.0f;
        }
        float log_of = top * scale + logf(sum);
        SIMD for (int64_t j = low; j < high; j++) {
            float share = quick_exp(LD(row[j]) * scale - log_of);
            row[j] = ST(j >= from && j < to ? share : 0.0f);
        }
        memset(row, 0, low * sizeof(T));
        memset(row + high, 0, (L - high) * sizeof(T));
        log_sum[n] = log_of;
    }
}

/* out = x with a share of it set to 0 and the rest scaled up: which, is a hash (murmur3's last steps) of place and seed,
   so that the way back needs no mask. */
void NAME(dropout)(const T *x, T *out, int64_t count, int64_t seed, float share) {
    uint32_t start = mixed((uint32_t)seed), limit = (uint32_t)(share * 4294967296.0);
    float scale = 1.0f / (1.0f - share);
    PARALLEL for (int64_t i = 0; i < count; i++)
        out[i] = ST(mixed(start ^ (uint32_t)i) >= limit ? LD(x[i]) * scale : 0.0f);
}

/* Scores to shares, and gradients of shares to gradients of scores, both in place. */
void NAME(softmax_backward)(T *scores, T *grad, const float *log_sum, const float *dots, int64_t heads, int64_t rows,
                            int64_t L, int64_t first, float scale, int64_t window) {
    PARALLEL for (int64_t n = 0; n < heads * rows; n++) {
        int64_t i = first + n % rows, from = window && i + 1 > window ? i + 1 - window : 0, to = i + 1;
        T *row = scores + n * L, *g = grad + n * L;
        int64_t low = WHOLE_DOWN(from), high = WHOLE_UP(to, L);
        float log_of = log_sum[n], dot = dots[n];
        SIMD for (int64_t j = low; j < high; j++) {
            float e = quick_exp(LD(row[j]) * scale - log_of);
            float share = j >= from && j < to ? e : 0.0f;
            row[j] = ST(share);
            g[j] = ST(share * (LD(g[j]) - dot) * scale);
        }
        memset(row, 0, low * sizeof(T));
        memset(g, 0, low * sizeof(T));
        memset(row + high, 0, (L - high) * sizeof(T));
        memset(g + high, 0, (L - high) * sizeof(T));
    }
}

/* losses[m] = cross entropy of row m; the row becomes its gradient times `weight`, in place when weight is not 0.
   Scores count times `scale`, and are capped at `cap` by cap * tanh(score / cap) when cap is not 0. */
void NAME(cross_entropy)(T *scores, const int64_t *targets, float *losses, int64_t M, int64_t V, float weight,
                         float scale, float cap) {
    PARALLEL for (int64_t m = 0; m < M; m++) {
        T *row = scores + m * V;
        float top = -INFINITY, sum = 0, wanted;
        if (cap != 0) {
            for (int64_t j = 0; j < V; j++) {
                float s = cap * tanhf(LD(row[j]) * scale / cap);
                top = s > top ? s : top;
            }
            for (int64_t j = 0; j < V; j++) sum += quick_exp(cap * tanhf(LD(row[j]) * scale / cap) - top);
            wanted = cap * tanhf(LD(row[targets[m]]) * scale / cap);
        } else {
            SIMD_MAX(top) for (int64_t j = 0; j < V; j++) {
                float s = LD(row[j]) * scale;
                top = s > top ? s : top;
            }
            SIMD_SUM(sum) for (int64_t j = 0; j < V; j++) sum += quick_exp(LD(row[j]) * scale - top);
            wanted = LD(row[targets[m]]) * scale;
        }
        float log_of = top + logf(sum);
        losses[m] = log_of - wanted;
        if (weight == 0) continue;
        if (cap != 0) {
            for (int64_t j = 0; j < V; j++) {
                float capped = tanhf(LD(row[j]) * scale / cap);
                float share = quick_exp(cap * capped - log_of) - (j == targets[m] ? 1.0f : 0.0f);
                row[j] = ST(share * (1.0f - capped * capped) * scale * weight);
            }
            continue;
        }
        float own = quick_exp(wanted - log_of) - 1.0f;
        SIMD for (int64_t j = 0; j < V; j++) row[j] = ST(quick_exp(LD(row[j]) * scale - log_of) * scale * weight);
        row[targets[m]] = ST(own * scale * weight);
    }
}

/* 4-bit NormalFloat (two values a byte, the high half first; one scale for `block` values of the flat matrix) to rows
   of `out`. With `codes` the scales are themselves packed in 8 bits, 256 to one of `scales`, plus `offset`. */
void NAME(unpack_nf4)(const uint8_t *packed, const uint8_t *quantised, const float *codes, const float *scales,
                      float offset, T *out, int64_t stride, int64_t N, int64_t K, int64_t block) {
    PARALLEL for (int64_t n = 0; n < N; n++) {
        T table[16];
        for (int64_t j = 0; j < K;) {
            int64_t flat = n * K + j, b = flat / block, end = (b + 1) * block - n * K;
            float scale = codes ? codes[quantised[b]] * scales[b / 256] + offset : scales[b];
            for (int c = 0; c < 16; c++) table[c] = ST(NF4[c] * scale);
            end = end < K ? end : K;
            const uint8_t *from = packed + flat / 2;
            T *to = out + n * stride + j;
            for (int64_t i = NAME(spread)(from, (end - j) / 2, table, to); i < (end - j) / 2; i++) {
                to[2 * i] = table[from[i] >> 4];
                to[2 * i + 1] = table[from[i] & 15];
            }
            j = end;
        }
    }
}

#endif
