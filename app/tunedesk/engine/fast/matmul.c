/* Matrix products in bf16 on AMX tiles, with sums in fp32. */
#define _GNU_SOURCE
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tiles.h"

/* Whether the products below are there: the compiler knew tiles and the system lets this process have them. */
int tiles_ready(void) {
#ifdef HAVE_TILES
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return 0;
#endif
}

#ifdef HAVE_TILES

enum { PANELS, FILLED, SUMS };
enum { DEEP = 320 }; /* steps that the left strip takes at a time, so that it stays in the L1 cache from panel to panel */
static const int64_t PANEL_BYTES = 1 << 20; /* of packed panels that a thread works with: half of its L2 cache */

typedef struct {
    const bf16 *left, *right;
    int64_t left_stride, right_stride, steps;
} Pair;

/* What becomes of the sums: they are the output; they are gate and up of a SwiGLU, in panels that take turns; they are
   the gradient of what a SwiGLU gave; they are added to an output in fp32. */
enum { PLAIN, SWIGLU, SWIGLU_BACKWARD, ADD };

/* The column of the right side that the product works on in place n. */
static inline int64_t column_at(int64_t n, int finish, int64_t N) {
    return finish == SWIGLU ? n / 64 * 32 + n % 32 + (n / 32 % 2) * (N / 2) : n;
}

/* Where the tile of columns [n, n + 16) and steps [k, k + 32) lies: columns by pairs of tiles, the last may be alone. */
static inline bf16 *tile_at(bf16 *panels, int64_t steps, int64_t from, int64_t to, int64_t n, int64_t k) {
    int64_t start = from + (n - from) / 32 * 32, width = least(32, to - start);
    return panels + (start - from) * steps + k * width + (n - start) * STEP;
}

/* Packs columns [from, to) of the right side into panels; the steps of the second pair follow those of the first. */
static void pack_panels(const Pair *pairs, int count, int transposed, int finish, int64_t N, int64_t from, int64_t to,
                        bf16 *panels) {
    int64_t all = pairs[0].steps + pairs[1].steps, done = 0;
    for (int p = 0; p < count; done += pairs[p++].steps) {
        const bf16 *right = pairs[p].right;
        int64_t stride = pairs[p].right_stride, steps = pairs[p].steps;
        if (transposed)
            for (int64_t n = from; n < to; n += TILE)
                for (int64_t k = 0; k < steps; k += STEP)
                    pack_columns(right + column_at(n, finish, N) * stride + k, stride,
                                 tile_at(panels, all, from, to, n, done + k));
        else
            for (int64_t k = 0; k < steps; k += STEP)
                for (int64_t n = from; n < to; n += TILE)
                    pack_rows(right + k * stride + n, stride, tile_at(panels, all, from, to, n, done + k));
    }
}

/* Sums (32, 32) to rows of `out`, one or two tiles wide. */
static void store_out(const float *sums, const bf16 *bias, bf16 *out, int64_t stride, int64_t rows, int wide) {
    __m512 low = _mm512_setzero_ps(), high = low;
    if (bias) low = widen(_mm256_loadu_si256((const void *)bias));
    if (bias && wide) high = widen(_mm256_loadu_si256((const void *)(bias + TILE)));
    for (int64_t i = 0; i < rows; i++) {
        __m512i both = narrow(_mm512_add_ps(_mm512_load_ps(sums + i * 32), low),
                              _mm512_add_ps(_mm512_load_ps(sums + i * 32 + TILE), high));
        if (wide)
            _mm512_storeu_si512(out + i * stride, both);
        else
            _mm256_storeu_si256((void *)(out + i * stride), _mm512_castsi512_si256(both));
    }
}

static inline __m512 sigmoid(__m512 x) {
    __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, power_of_2(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)))));
}

/* Rows of two neighbouring panels' sums, gate and up, to `both` (rows of gate and up side by side, `width` each) and
   silu(gate) * up to `out`. Both are written past the cache: they are read on the way back, long after. */
static void store_swiglu(const float *sums, bf16 *both, int64_t both_stride, int64_t width, bf16 *out, int64_t stride,
                         int64_t rows) {
    for (int64_t i = 0; i < rows; i++, both += both_stride, out += stride) {
        const float *row = sums + i * 32;
        __m512i gates = narrow(_mm512_load_ps(row), _mm512_load_ps(row + 16));
        __m512i ups = narrow(_mm512_load_ps(row + 1024), _mm512_load_ps(row + 1040));
        __m512 result[2];
        for (int t = 0; t < 2; t++) {
            __m512 gate = half_of(gates, t), up = half_of(ups, t);
            result[t] = _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), up);
        }
        store_past(both, gates);
        store_past(both + width, ups);
        _mm512_storeu_si512(out, narrow(result[0], result[1]));
    }
}

/* Rows of the sums, the gradient of a SwiGLU's output, to those of gate and up in `d_both`; the output again in `out`. */
static void store_swiglu_backward(const float *sums, const bf16 *both, bf16 *d_both, int64_t both_stride, int64_t width,
                                  bf16 *out, int64_t stride, int64_t rows) {
    for (int64_t i = 0; i < rows; i++, both += both_stride, d_both += both_stride, out += stride) {
        __m512i gates = _mm512_loadu_si512(both), ups = _mm512_loadu_si512(both + width);
        __m512 result[2], d_gate[2], d_up[2];
        for (int t = 0; t < 2; t++) {
            __m512 gate = half_of(gates, t), up = half_of(ups, t), grad = _mm512_load_ps(sums + i * 32 + t * 16);
            __m512 share = sigmoid(gate), silu = _mm512_mul_ps(gate, share);
            result[t] = _mm512_mul_ps(silu, up);
            d_up[t] = _mm512_mul_ps(grad, silu);
            d_gate[t] = _mm512_mul_ps(_mm512_mul_ps(grad, up), _mm512_add_ps(share, _mm512_fnmadd_ps(silu, share, silu)));
        }
        _mm512_storeu_si512(out, narrow(result[0], result[1]));
        _mm512_storeu_si512(d_both, narrow(d_gate[0], d_gate[1]));
        _mm512_storeu_si512(d_both + width, narrow(d_up[0], d_up[1]));
    }
}

/* The last rows of a left side, filled up to a strip with zeros. */
static const bf16 *filled_strip(const bf16 *left, int64_t stride, int64_t steps, int64_t rows, bf16 *strip) {
    for (int64_t i = 0; i < rows; i++) memcpy(strip + i * steps, left + i * stride, steps * sizeof(bf16));
    memset(strip + rows * steps, 0, (STRIP - rows) * steps * sizeof(bf16));
    return strip;
}

/* Threads share the columns, `unit` of them in one hand, and the rows as well where columns are few. */
typedef struct {
    int64_t first_strip, last_strip, first_column, last_column;
} Part;

static Part part_of(int64_t M, int64_t N, int64_t unit) {
    int64_t threads = omp_get_num_threads(), me = omp_get_thread_num(), across = threads;
    while (across > 1 && (threads % across || N / across < 128)) across--;
    int64_t down = threads / across, column = me % across, row = me / across;
    int64_t units = N / unit, strips = (M + STRIP - 1) / STRIP;
    return (Part){strips * row / down, strips * (row + 1) / down, units * column / across * unit,
                  units * (column + 1) / across * unit};
}

/* out (M, N) = left (M, steps) right + left_2 (M, steps_2) right_2 + bias, where steps_2 may be 0. Right sides are
   (steps, N), or `transposed` (N, steps). Rows of all may lie apart. Each thread packs its columns of the right side,
   as many at a time as half its cache holds, and takes the left side by strips through them.

   SWIGLU: out is gate and up, (M, N / 2) each, side by side, and `more` (M, N / 2) the SwiGLU of them. SWIGLU_BACKWARD:
   `both` is gate and up, `more` like it becomes their gradient, and out (M, N) is the SwiGLU again. ADD: `total` (M, N), fp32, is added to; M and
   N are multiples of 32. */
void matmul(const bf16 *left, int64_t left_stride, const bf16 *right, int64_t right_stride, int64_t steps,
            const bf16 *left_2, int64_t left_stride_2, const bf16 *right_2, int64_t right_stride_2, int64_t steps_2,
            int64_t transposed, const bf16 *bias, bf16 *out, int64_t out_stride, int64_t M, int64_t N, int64_t finish,
            const bf16 *both, bf16 *more, int64_t more_stride, float *total) {
    const Pair pairs[2] = {{left, right, left_stride, right_stride, steps},
                           {left_2, right_2, left_stride_2, right_stride_2, steps_2}};
    int count = steps_2 ? 2 : 1;
    int64_t unit = finish == SWIGLU ? 64 : finish == PLAIN ? TILE : 32, pair = unit > 32 ? unit : 32;
    int64_t all = steps + steps_2, most = PANEL_BYTES / (all * (int64_t)sizeof(bf16)) / pair * pair;
    if (most < pair) most = pair;
#pragma omp parallel
    {
        Part part = part_of(M, N, unit);
        int64_t columns = part.last_column - part.first_column, groups = (columns + most - 1) / most;
        int64_t group = groups ? up_to((columns + groups - 1) / groups, pair) : 0;
        bf16 *panels = thread_room(PANELS, group * all * sizeof(bf16));
        bf16 *filled = thread_room(FILLED, STRIP * all * sizeof(bf16));
        int64_t deep = group > 32 ? DEEP : steps;
        float *sums = thread_room(SUMS, STRIP * group * sizeof(float));
        tiles_begin();
        for (int64_t from = part.first_column, to; from < part.last_column; from = to) {
            to = least(from + group, part.last_column);
            pack_panels(pairs, count, transposed, finish, N, from, to, panels);
            for (int64_t strip = part.first_strip; strip < part.last_strip; strip++) {
                int64_t m = strip * STRIP, rows = least(STRIP, M - m), stride[2];
                const bf16 *rows_of[2];
                for (int p = 0; p < count; p++) {
                    int whole = rows == STRIP;
                    rows_of[p] = pairs[p].left + m * pairs[p].left_stride;
                    stride[p] = whole ? pairs[p].left_stride : pairs[p].steps;
                    if (!whole)
                        rows_of[p] = filled_strip(rows_of[p], pairs[p].left_stride, pairs[p].steps, rows,
                                                  filled + p * STRIP * steps);
                }
                for (int64_t k = 0; k < steps; k += deep)
                    for (int64_t n = from; n < to; n += 32) {
                        int wide = to - n >= 32, last = k + deep >= steps;
                        const bf16 *panel = panels + (n - from) * all, *panel_2 = panel + steps * (wide ? 32 : TILE);
                        float *sum = sums + (n - from) * STRIP;
                        if (k)
                            load_sums(sum, 32);
                        else if (finish == ADD)
                            load_sums(total + m * N + n, N);
                        else
                            clear_sums();
                        multiply(rows_of[0] + k, stride[0], panel + k * (wide ? 32 : TILE), least(deep, steps - k), wide);
                        if (last && count == 2) multiply(rows_of[1], stride[1], panel_2, steps_2, wide);
                        if (last && finish == ADD) {
                            store_sums(total + m * N + n, N);
                            continue;
                        }
                        if (finish == SWIGLU_BACKWARD && !k)
                            for (int64_t i = 0; i < rows; i++) {
                                _mm_prefetch((const char *)(both + (m + i) * more_stride + n), _MM_HINT_T1);
                                _mm_prefetch((const char *)(both + (m + i) * more_stride + N + n), _MM_HINT_T1);
                            }
                        store_sums(sum, 32);
                        if (!last) continue;
                        if (finish == SWIGLU_BACKWARD)
                            store_swiglu_backward(sum, both + m * more_stride + n, more + m * more_stride + n,
                                                  more_stride, N, out + m * out_stride + n, out_stride, rows);
                        else if (finish == PLAIN)
                            store_out(sum, bias ? bias + n : 0, out + m * out_stride + n, out_stride, rows, wide);
                        else if (n / 32 % 2) /* up, and gate lies before it */
                            store_swiglu(sum - STRIP * 32, out + m * out_stride + n / 64 * 32, out_stride, N / 2,
                                         more + m * more_stride + n / 64 * 32, more_stride, rows);
                    }
            }
        }
        _mm_sfence();
        tiles_end();
    }
}

/* out (R, N) in fp32 = left' right, of left (M, R) and right (M, N), whose rows may lie apart; R and N are multiples of
   32. Right sides are read by blocks of rows, so that their columns need not be fetched one by one. */
void matmul_over_rows(const bf16 *left, int64_t left_stride, const bf16 *right, int64_t right_stride, float *out,
                      int64_t M, int64_t R, int64_t N) {
    enum { ROWS = 128, WIDE = 128 };
#pragma omp parallel
    {
        int64_t threads = omp_get_num_threads(), me = omp_get_thread_num(), share = N / 32;
        int64_t first = share * me / threads * 32, last = share * (me + 1) / threads * 32;
        bf16 *across = thread_room(PANELS, R * ROWS * sizeof(bf16));
        bf16 *filled = thread_room(FILLED, STRIP * (R > WIDE ? R : WIDE) * sizeof(bf16));
        bf16 panels[WIDE * ROWS] __attribute__((aligned(64)));
        tiles_begin();
        for (int64_t m = 0; m < M; m += ROWS) {
            int64_t rows = least(ROWS, M - m), steps = up_to(rows, STEP);
            for (int64_t k = 0; k < rows; k += STEP) {
                const bf16 *from = left + (m + k) * left_stride;
                int64_t stride = left_stride, held = least(STEP, rows - k);
                if (held < STEP) from = filled_strip(from, stride, R, held, filled), stride = R;
                flip(from, stride, R, across + k, ROWS);
            }
            for (int64_t n = first; n < last; n += WIDE) {
                int64_t columns = least(WIDE, last - n);
                for (int64_t k = 0; k < rows; k += STEP) {
                    const bf16 *from = right + (m + k) * right_stride + n;
                    int64_t stride = right_stride, held = least(STEP, rows - k);
                    if (held < STEP) from = filled_strip(from, stride, columns, held, filled), stride = columns;
                    for (int64_t i = 0; i < held; i++) /* the next panels', which no prefetcher foresees */
                        for (int64_t d = WIDE; d < 2 * WIDE; d += 32)
                            _mm_prefetch((const char *)(from + i * stride + d), _MM_HINT_T0);
                    for (int64_t d = 0; d < columns; d += TILE)
                        pack_rows(from + d, stride, panels + d / 32 * 32 * ROWS + k * 32 + d % 32 / TILE * TILE_NUMBERS);
                }
                for (int64_t d = 0; d < columns; d += 32)
                    for (int64_t r = 0; r < R; r += 32) {
                        float *sums = out + r * N + n + d;
                        if (m)
                            load_sums(sums, N);
                        else
                            clear_sums();
                        multiply(across + r * ROWS, ROWS, panels + d * ROWS, steps, 1);
                        store_sums(sums, N);
                    }
            }
        }
        tiles_end();
    }
}

#endif
