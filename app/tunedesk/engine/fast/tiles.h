/* What products on AMX tiles share: the tile configuration, packing into panels, and the inner kernel.

   A tile holds 16 rows of 64 bytes. `_tile_dpbf16ps` multiplies 16 x 32 numbers of the left side by 32 x 16 of the right
   and adds to 16 x 16 sums in fp32. It wants the right side in pairs: row i of such a tile has numbers 2 i and 2 i + 1
   of the contraction side by side, column after column ("VNNI"). A panel is the right side of 32 columns (or 16): for
   each 32 steps of the contraction its two tiles (or one), so that the inner kernel reads memory straight on. */

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#define HAVE_TILES 1

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

static const float LOG2_E = 1.44269504f;

enum { TILE = 16, STEP = 32, STRIP = 32, TILE_NUMBERS = TILE * STEP };

static inline int64_t up_to(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Each thread configures its tiles on the way into a parallel region and releases them on the way out. */
static inline void tiles_begin(void) {
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) all = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    _tile_loadconfig(&all);
}

static inline void tiles_end(void) { _tile_release(); }

/* Memory that each thread keeps from call to call, by purpose; grows, is never given back. */
static inline void *thread_room(int purpose, int64_t bytes) {
    static __thread void *room[12];
    static __thread int64_t size[12];
    if (size[purpose] < bytes) {
        free(room[purpose]);
        size[purpose] = up_to(bytes, 4096);
        room[purpose] = aligned_alloc(64, size[purpose]);
    }
    return room[purpose];
}

/* Two vectors of 16 fp32 to 32 bf16, `low` first, to nearest. */
static inline __m512i narrow(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

static inline __m512 widen(__m256i numbers) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16));
}

/* 2^x, within 2 units in the last place; very small x give 0. */
static inline __m512 power_of_2(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole), p = _mm512_set1_ps(1.33989e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.61844e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550327e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

/* The first or second 16 of 32 bf16. */
static inline __m512 half_of(__m512i numbers, int second) {
    return widen(second ? _mm512_extracti64x4_epi64(numbers, 1) : _mm512_castsi512_si256(numbers));
}

/* Stores past the cache where the place is a whole line. */
static inline void store_past(bf16 *to, __m512i numbers) {
    if ((uintptr_t)to % 64)
        _mm512_storeu_si512(to, numbers);
    else
        _mm512_stream_si512((void *)to, numbers);
}

/* 16 x 16 numbers of 32 bits, row i to column i. */
static inline void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Tile of 16 columns and 32 steps from a right side that is stored transposed: `from` has a row for each column. */
static inline void pack_columns(const bf16 *from, int64_t stride, bf16 *tile) {
    __m512i r[16];
    for (int i = 0; i < 16; i++) {
        r[i] = _mm512_loadu_si512(from + i * stride);
        _mm_prefetch((const char *)(from + (16 + i) * stride), _MM_HINT_T0);
    }
    transpose(r);
    for (int i = 0; i < 16; i++) _mm512_store_si512(tile + i * 32, r[i]);
}

/* 32 rows of `width` numbers to 32 columns of `to`. */
static inline void flip(const bf16 *rows, int64_t row_stride, int64_t width, bf16 *to, int64_t stride) {
    const __m512i even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24,
                                          22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
    for (int64_t d = 0; d < width; d += 32) {
        __m512i low[16], high[16];
        for (int i = 0; i < 16; i++) {
            low[i] = _mm512_loadu_si512(rows + i * row_stride + d);
            high[i] = _mm512_loadu_si512(rows + (TILE + i) * row_stride + d);
        }
        transpose(low);
        transpose(high);
        for (int i = 0; i < 16; i++) {
            _mm512_storeu_si512(to + (d + 2 * i) * stride, _mm512_permutex2var_epi16(low[i], even, high[i]));
            _mm512_storeu_si512(to + (d + 2 * i + 1) * stride, _mm512_permutex2var_epi16(low[i], odd, high[i]));
        }
    }
}

/* Two rows of 16 numbers, number by number side by side. */
static inline __m512i interleave(__m256i even, __m256i odd) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1));
}

/* The same from a right side that is stored as it is: `from` has a row for each step. */
static inline void pack_rows(const bf16 *from, int64_t stride, bf16 *tile) {
    for (int i = 0; i < 16; i++) {
        const bf16 *even = from + 2 * i * stride, *odd = even + stride;
        _mm512_store_si512(tile + i * 32, interleave(_mm256_loadu_si256((const void *)even),
                                                     _mm256_loadu_si256((const void *)odd)));
    }
}

/* Tiles 0 to 3, the sums (32 x 32), += left (32, steps), whose rows may lie apart, times a panel of 32 columns, or of
   16: then tiles 1 and 3 are left alone. */
static inline void multiply(const bf16 *left, int64_t stride, const bf16 *panel, int64_t steps, int wide) {
    int64_t row_bytes = stride * sizeof(bf16);
    if (wide)
        for (int64_t k = 0; k < steps; k += STEP, left += STEP, panel += 2 * TILE_NUMBERS) {
            _tile_loadd(4, left, row_bytes);
            _tile_loadd(6, panel, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, panel + TILE_NUMBERS, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, left + TILE * stride, row_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    else
        for (int64_t k = 0; k < steps; k += STEP, left += STEP, panel += TILE_NUMBERS) {
            _tile_loadd(4, left, row_bytes);
            _tile_loadd(6, panel, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, left + TILE * stride, row_bytes);
            _tile_dpbf16ps(2, 5, 6);
        }
}

static inline void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static inline void store_sums(float *sums, int64_t stride) {
    _tile_stored(0, sums, stride * sizeof(float));
    _tile_stored(1, sums + TILE, stride * sizeof(float));
    _tile_stored(2, sums + TILE * stride, stride * sizeof(float));
    _tile_stored(3, sums + TILE * stride + TILE, stride * sizeof(float));
}

static inline void load_sums(const float *sums, int64_t stride) {
    _tile_loadd(0, sums, stride * sizeof(float));
    _tile_loadd(1, sums + TILE, stride * sizeof(float));
    _tile_loadd(2, sums + TILE * stride, stride * sizeof(float));
    _tile_loadd(3, sums + TILE * stride + TILE, stride * sizeof(float));
}

#endif
