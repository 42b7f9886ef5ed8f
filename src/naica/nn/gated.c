/* Gated networks on edges: y = phi(z_0) * sigmoid(z_1) of z = W2 silu(W x + b + sum_s W_s f_s[i_s]) + b2, with or without layer norms, times a
   factor; and the derivative by everything that depends on positions. W x and the factor may
   come from a table over the length of the edge. Works through a few edges at a time, so that what lies between stays in the
   first-level cache; the plain version beside it (gated.py) is what it must equal. */
#include "vectors.h"

#if defined(__AVX__) && !defined(__AVX512F__)
#define NV 2
#else
#define NV 4
#endif
#define TILE 24
#define ROWS 6
#define MOST 256 /* widest layer, both halves */

/* where the processor has them: least and largest, a number times a power of two, and a reciprocal to 14 bits, which one step of Newton doubles */
#if defined(__AVX512F__)
#include <immintrin.h>
#define LEAST(a, b) ((vf)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define MOST_OF(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define SCALED(p, n) ((vf)_mm512_scalef_ps((__m512)(p), (__m512)(n)))
#define ABOUT_ONE_OVER(a) ((vf)_mm512_rcp14_ps((__m512)(a)))
#elif defined(__AVX__)
#include <immintrin.h>
#define LEAST(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define MOST_OF(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#endif

#define SOURCES 3
#define PARTS 8

typedef struct {
    int64_t edges, inputs, hidden, width, row; /* K, H, C, floats from one row of w to the next */
    int64_t later, norm, value, summed, residual, threads;
    int64_t parts, silu; /* of the factor: functions it is made of, whether a silu follows */
    int64_t n[SOURCES], k[SOURCES], row_of[SOURCES];
    const int64_t *index[SOURCES];
    const float *f[SOURCES], *w_of[SOURCES];
    float *p[SOURCES]; /* space for W_s f_s: (n, 2H); backwards for its gradient, the sources after the first once per thread */
    float *g_f[SOURCES];
    const float *x, *w, *b1, *w2, *b2, *scale[2], *shift[2], *factor, *w_factor;
    float *x1, *x2, *out; /* x1: what the first layer made, where a second follows its slope */
    const float *g;
    float *g_x, *g_factor;
    const float *table, *length; /* (nodes, 2, columns) cubic pieces over the length: values, and slopes times the step */
    float *g_length;
    int64_t nodes, columns, first; /* `first`: columns that stand for W x (2H, or none); the factor follows */
    double per_step;
    float *space;
} Work;

INLINE vf vexp(vf x) {
#ifdef LEAST
    x = LEAST(MOST_OF(x, all(-87.0f)), all(88.0f));
#else
    vi low = x < all(-87.0f), high = x > all(88.0f);
    x = (vf)(((vi)all(-87.0f) & low) | ((vi)x & ~low));
    x = (vf)(((vi)all(88.0f) & high) | ((vi)x & ~high));
#endif
    vf magic = all(12582912.0f), n = (x * 1.44269504088896341f + magic) - magic;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
#ifdef SCALED
    return SCALED(p, n);
#else
    vi power = (__builtin_convertvector(n, vi) + 127) << 23;
    return p * (vf)power;
#endif
}

INLINE vf sigmoid(vf x) {
    vf below = 1.0f + vexp(-x);
#ifdef ABOUT_ONE_OVER
    vf r = ABOUT_ONE_OVER(below);
    return r * (2.0f - below * r);
#else
    return 1.0f / below;
#endif
}

/* the sum of all lanes, in every lane */
#if VL == 16
#define SWAP(x, d) __builtin_shufflevector(x, x, 0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d, 8 ^ d, 9 ^ d, 10 ^ d, 11 ^ d, 12 ^ d, 13 ^ d, 14 ^ d, 15 ^ d)
#elif VL == 8
#define SWAP(x, d) __builtin_shufflevector(x, x, 0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d)
#else
#define SWAP(x, d) __builtin_shufflevector(x, x, 0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d)
#endif
INLINE vf total(vf x) {
#if VL >= 16
    x += SWAP(x, 8);
#endif
#if VL >= 8
    x += SWAP(x, 4);
#endif
    x += SWAP(x, 2);
    return x + SWAP(x, 1);
}

/* out (rows, nv vectors) += left (rows, k) times right (k, nv vectors), all counts known when compiled but k */
INLINE void block(int rows, int nv, int64_t k, const float *left, int64_t l_left, const float *right, int64_t l_right, float *out, int64_t l_out) {
    vf sum[ROWS][NV];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < nv; v++) sum[r][v] = *(const vf *)(out + r * l_out + v * VL);
    for (int64_t q = 0; q < k; q++) {
        vf row[NV];
#pragma GCC unroll 8
        for (int v = 0; v < nv; v++) row[v] = *(const vf *)(right + q * l_right + v * VL);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vf one = all(left[r * l_left + q]);
#pragma GCC unroll 8
            for (int v = 0; v < nv; v++) sum[r][v] += one * row[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < nv; v++) *(vf *)(out + r * l_out + v * VL) = sum[r][v];
}

/* out (m, n) += left (m, k) right (k, n); n a multiple of VL */
static void product(int64_t m, int64_t n, int64_t k, const float *left, int64_t l_left, const float *right, int64_t l_right, float *out, int64_t l_out) {
    int64_t column = 0;
    for (; column + NV * VL <= n; column += NV * VL) {
        int64_t r = 0;
        for (; r + ROWS <= m; r += ROWS) block(ROWS, NV, k, left + r * l_left, l_left, right + column, l_right, out + r * l_out + column, l_out);
        for (; r < m; r++) block(1, NV, k, left + r * l_left, l_left, right + column, l_right, out + r * l_out + column, l_out);
    }
    for (; column < n; column += VL) {
        int64_t r = 0;
        for (; r + ROWS <= m; r += ROWS) block(ROWS, 1, k, left + r * l_left, l_left, right + column, l_right, out + r * l_out + column, l_out);
        for (; r < m; r++) block(1, 1, k, left + r * l_left, l_left, right + column, l_right, out + r * l_out + column, l_out);
    }
}

/* (rows, columns) of a matrix -> (columns, rows), in squares that are read and written within the cache */
static void turned(int64_t rows, int64_t columns, const float *from, int64_t row, float *to) {
    int64_t h0 = 0;
    for (; h0 + 16 <= rows; h0 += 16) {
        int64_t k0 = 0;
        for (; k0 + 4 <= columns; k0 += 4) {
            float square[4][16];
            for (int h = 0; h < 16; h++)
                for (int k = 0; k < 4; k++) square[k][h] = from[(h0 + h) * row + k0 + k];
            for (int k = 0; k < 4; k++) memcpy(to + (k0 + k) * rows + h0, square[k], sizeof square[k]);
        }
        for (; k0 < columns; k0++)
            for (int h = 0; h < 16; h++) to[k0 * rows + h0 + h] = from[(h0 + h) * row + k0];
    }
    for (; h0 < rows; h0++)
        for (int64_t k = 0; k < columns; k++) to[k * rows + h0] = from[h0 * row + k];
}

INLINE void add(float *to, const float *from, int64_t n) {
    for (int64_t k = 0; k < n; k += VL) *(vf *)(to + k) += *(const vf *)(from + k);
}

/* layer norm of one half: z = scale (x - mean) / deviation + shift; returns 1 / deviation, `centred` gets (x - mean) / deviation */
INLINE vf normalised(const float *x, int64_t n, const float *scale, const float *shift, float *centred, float *z) {
    vf sum = all(0), squares = all(0);
    for (int64_t k = 0; k < n; k += VL) sum += *(const vf *)(x + k);
    vf mean = total(sum) * (1.0f / n);
    for (int64_t k = 0; k < n; k += VL) {
        vf d = *(const vf *)(x + k) - mean;
        squares += d * d;
    }
    vf inverse = all(1.0f / __builtin_sqrtf(total(squares)[0] / n + 1e-5f));
    for (int64_t k = 0; k < n; k += VL) {
        vf d = (*(const vf *)(x + k) - mean) * inverse;
        *(vf *)(centred + k) = d;
        *(vf *)(z + k) = d * *(const vf *)(scale + k) + *(const vf *)(shift + k);
    }
    return inverse;
}

/* g by z -> g by x, in place */
INLINE void norm_back(float *g, int64_t n, const float *scale, const float *centred, vf inverse) {
    vf sum = all(0), along = all(0);
    for (int64_t k = 0; k < n; k += VL) {
        vf one = *(vf *)(g + k) * *(const vf *)(scale + k);
        *(vf *)(g + k) = one;
        sum += one;
        along += one * *(const vf *)(centred + k);
    }
    vf mean = total(sum) * (1.0f / n), slope = total(along) * (1.0f / n);
    for (int64_t k = 0; k < n; k += VL) *(vf *)(g + k) = (*(vf *)(g + k) - mean - *(const vf *)(centred + k) * slope) * inverse;
}

/* where edge e reads the table: two rows and the weights of value and slope at both ends, for the function or for its derivative */
typedef struct {
    const float *row;
    vf weight[4], steep[4];
} Piece;

INLINE void piece_of(const Work *w, int64_t e, Piece *to) {
    float place = w->length[e] * (float)w->per_step, per = (float)w->per_step;
    if (!(place <= w->nodes - 1)) place = w->nodes - 1, per = 0; /* beyond the last node nothing changes any more */
    int64_t node = (int64_t)place;
    if (node > w->nodes - 2) node = w->nodes - 2;
    float s = place - node, o = 1.0f - s;
    to->row = w->table + node * 2 * w->columns;
    to->weight[0] = all((1.0f + 2.0f * s) * o * o);
    to->weight[1] = all(s * o * o);
    to->weight[2] = all(s * s * (3.0f - 2.0f * s));
    to->weight[3] = all(-s * s * o);
    to->steep[0] = all(-6.0f * s * o * per);
    to->steep[1] = all(o * (1.0f - 3.0f * s) * per);
    to->steep[2] = all(6.0f * s * o * per);
    to->steep[3] = all(s * (3.0f * s - 2.0f) * per);
}

INLINE vf read(const Piece *p, const vf *weight, int64_t columns, int64_t k) {
    const float *row = p->row + k;
    return weight[0] * *(const vf *)row + weight[1] * *(const vf *)(row + columns) + weight[2] * *(const vf *)(row + 2 * columns) +
           weight[3] * *(const vf *)(row + 3 * columns);
}

/* one vector of the factor of edge e: given, made of a few functions, or from the table; `slope` becomes the derivative of its silu */
INLINE vf factor_of(const Work *w, const Piece *piece, const float *w_factor, int64_t e, int64_t k, vf *slope) {
    *slope = all(1.0f);
    if (w->table) return read(piece, piece->weight, w->columns, w->first + k);
    if (!w->parts) return *(const vf *)(w->factor + e * w->width + k);
    vf sum = all(0);
    for (int64_t r = 0; r < w->parts; r++) sum += w->factor[e * w->parts + r] * *(const vf *)(w_factor + r * w->width + k);
    if (!w->silu) return sum;
    vf s = sigmoid(sum);
    *slope = s * (1.0f + sum * (1.0f - s));
    return sum * s;
}

INLINE void forward_rows(const Work *w, int64_t from, int64_t to, const float *w_in, const float *w_factor, int64_t half_hidden, int64_t width, int norm) {
    int64_t hidden = 2 * half_hidden, both = 2 * width;
    float own1[TILE * MOST] __attribute__((aligned(64))), own2[TILE * MOST] __attribute__((aligned(64))), act[TILE * MOST] __attribute__((aligned(64)));
    float centred[MOST] __attribute__((aligned(64))), z[MOST] __attribute__((aligned(64)));
    Piece pieces[TILE];
    for (int64_t start = from; start < to; start += TILE) {
        int64_t rows = to - start < TILE ? to - start : TILE;
        float *x1 = w->x1 ? w->x1 + start * hidden : own1;
        float *x2 = !w->later ? x1 : w->x2 ? w->x2 + start * both : own2;
        for (int64_t r = 0; r < rows; r++) {
            float *to_row = x1 + r * hidden;
            int64_t e = start + r;
            if (w->b1) memcpy(to_row, w->b1, hidden * sizeof(float));
            else memset(to_row, 0, hidden * sizeof(float));
            if (w->table) piece_of(w, e, pieces + r);
            if (w->first)
                for (int64_t k = 0; k < hidden; k += VL) *(vf *)(to_row + k) += read(pieces + r, pieces[r].weight, w->columns, k);
            for (int q = 0; q < SOURCES; q++)
                if (w->f[q] && w->index[q][e] >= 0) add(to_row, w->p[q] + w->index[q][e] * hidden, hidden);
        }
        product(rows, hidden, w->inputs, w->x + start * w->inputs, w->inputs, w_in, hidden, x1, hidden);
        if (w->later) {
            for (int64_t k = 0; k < rows * hidden; k += VL) {
                vf x = *(const vf *)(x1 + k), s = sigmoid(x);
                *(vf *)(act + k) = x * s;
                *(vf *)(x1 + k) = s * (1.0f + x * (1.0f - s)); /* all the way back needs of it is the slope */
            }
            for (int64_t r = 0; r < rows; r++) memcpy(x2 + r * both, w->b2, both * sizeof(float));
            for (int half = 0; half < 2; half++)
                product(rows, width, half_hidden, act + half * half_hidden, hidden, w->w2 + half * half_hidden * width, width, x2 + half * width, both);
        }
        for (int64_t r = 0; r < rows; r++) {
            int64_t e = start + r;
            const float *value = x2 + r * both, *gate = value + width;
            float *out = w->out + (w->summed ? w->index[0][e] : e) * width;
            if (norm) {
                normalised(value, width, w->scale[0], w->shift[0], centred, z);
                normalised(gate, width, w->scale[1], w->shift[1], centred, z + width);
                value = z;
                gate = z + width;
            }
            for (int64_t k = 0; k < width; k += VL) {
                vf v = *(const vf *)(value + k), y = v * sigmoid(*(const vf *)(gate + k));
                if (w->value) y = y * sigmoid(v);
                vf slope;
                if (w->factor || w->table) y = y * factor_of(w, pieces + r, w_factor, e, k, &slope);
                if (w->residual && !w->summed) y += *(const vf *)(w->x + e * width + k);
                if (w->summed) *(vf *)(out + k) += y;
                else *(vf *)(out + k) = y;
            }
        }
    }
}

INLINE void backward_rows(const Work *w, int64_t from, int64_t to, const float *w_out, int64_t row_out, int64_t padded, const float *w2_out, const float *w_factor, int thread,
                          int64_t half_hidden, int64_t width, int norm) {
    int64_t hidden = 2 * half_hidden, both = 2 * width;
    float g2[TILE * MOST] __attribute__((aligned(64))), g1[TILE * MOST] __attribute__((aligned(64))), gx[TILE * MOST] __attribute__((aligned(64)));
    float centred[MOST] __attribute__((aligned(64))), z[MOST] __attribute__((aligned(64)));
    Piece pieces[TILE];
    float *g_of[SOURCES];
    for (int q = 0; q < SOURCES; q++) g_of[q] = w->f[q] ? w->p[q] + (q ? thread * w->n[q] * hidden : 0) : 0;
    for (int64_t start = from; start < to; start += TILE) {
        int64_t rows = to - start < TILE ? to - start : TILE;
        const float *x1 = w->x1 + start * hidden, *x2 = w->later ? w->x2 + start * both : x1;
        for (int64_t r = 0; r < rows; r++) {
            int64_t e = start + r;
            const float *value = x2 + r * both, *gate = value + width, *g = w->g + (w->summed ? w->index[0][e] : e) * width;
            float *g_value = g2 + r * both, *g_gate = g_value + width;
            vf inverse[2] = {all(0), all(0)};
            vf parts[PARTS];
            for (int64_t q = 0; q < w->parts; q++) parts[q] = all(0);
            vf along = all(0);
            if (w->table) piece_of(w, e, pieces + r);
            if (norm) {
                inverse[0] = normalised(value, width, w->scale[0], w->shift[0], centred, z);
                inverse[1] = normalised(gate, width, w->scale[1], w->shift[1], centred + width, z + width);
                value = z;
                gate = z + width;
            }
            for (int64_t k = 0; k < width; k += VL) {
                vf v = *(const vf *)(value + k), open = sigmoid(*(const vf *)(gate + k)), up = *(const vf *)(g + k);
                vf phi = v, slope = all(1.0f);
                if (w->value) {
                    vf s = sigmoid(v);
                    phi = v * s;
                    slope = s * (1.0f + v * (1.0f - s));
                }
                if (w->factor || w->table) {
                    vf bend, height = factor_of(w, pieces + r, w_factor, e, k, &bend), of_factor = up * phi * open * bend;
                    up = up * height;
                    if (w->table) along += of_factor * read(pieces + r, pieces[r].steep, w->columns, w->first + k);
                    else if (!w->parts) *(vf *)(w->g_factor + e * width + k) = of_factor;
                    for (int64_t q = 0; q < w->parts; q++) parts[q] += of_factor * *(const vf *)(w_factor + q * width + k);
                }
                up = up * open;
                *(vf *)(g_value + k) = up * slope;
                *(vf *)(g_gate + k) = up * phi * (1.0f - open);
            }
            for (int64_t q = 0; q < w->parts; q++) w->g_factor[e * w->parts + q] = total(parts[q])[0];
            if (w->table) w->g_length[e] = total(along)[0];
            if (norm) {
                norm_back(g_value, width, w->scale[0], centred, inverse[0]);
                norm_back(g_gate, width, w->scale[1], centred + width, inverse[1]);
            }
        }
        float *g = g2;
        if (w->later) {
            g = g1;
            memset(g1, 0, rows * hidden * sizeof(float));
            for (int half = 0; half < 2; half++)
                product(rows, half_hidden, width, g2 + half * width, both, w2_out + half * half_hidden * width, half_hidden, g1 + half * half_hidden, hidden);
            for (int64_t k = 0; k < rows * hidden; k += VL) {
                *(vf *)(g1 + k) *= *(const vf *)(x1 + k);
            }
        }
        memset(gx, 0, rows * padded * sizeof(float));
        product(rows, padded, hidden, g, hidden, w_out, row_out, gx, padded);
        for (int64_t r = 0; r < rows; r++) {
            int64_t e = start + r;
            const float *row = g + r * hidden;
            float *g_x = w->g_x + e * w->inputs;
            if (w->first) {
                vf along = all(0);
                for (int64_t k = 0; k < hidden; k += VL) along += *(const vf *)(row + k) * read(pieces + r, pieces[r].steep, w->columns, k);
                w->g_length[e] += total(along)[0];
            } else memcpy(g_x, gx + r * padded, w->inputs * sizeof(float));
            if (w->residual && !w->summed) add(g_x, w->g + e * width, width);
            for (int q = 0; q < SOURCES; q++)
                if (g_of[q] && w->index[q][e] >= 0) add(g_of[q] + w->index[q][e] * hidden, row, hidden);
        }
    }
}

/* the usual widths as constants: loops over them unroll into registers */
static void forward_range(const Work *w, int64_t from, int64_t to, const float *w_in, const float *w_factor) {
    if (w->hidden == 64 && w->width == 64 && w->norm) forward_rows(w, from, to, w_in, w_factor, 64, 64, 1);
    else if (w->hidden == 64 && w->width == 64) forward_rows(w, from, to, w_in, w_factor, 64, 64, 0);
    else forward_rows(w, from, to, w_in, w_factor, w->hidden, w->width, (int)w->norm);
}

static void backward_range(const Work *w, int64_t from, int64_t to, const float *w_out, int64_t row_out, int64_t padded, const float *w2_out, const float *w_factor, int thread) {
    if (w->hidden == 64 && w->width == 64 && w->norm) backward_rows(w, from, to, w_out, row_out, padded, w2_out, w_factor, thread, 64, 64, 1);
    else if (w->hidden == 64 && w->width == 64) backward_rows(w, from, to, w_out, row_out, padded, w2_out, w_factor, thread, 64, 64, 0);
    else backward_rows(w, from, to, w_out, row_out, padded, w2_out, w_factor, thread, w->hidden, w->width, (int)w->norm);
}

/* where the edges of a thread begin: all edges of one row of the first source go to one thread */
static int64_t cut(const Work *w, int64_t thread) {
    int64_t e = w->edges * thread / w->threads;
    if (w->f[0]) while (e > 0 && e < w->edges && w->index[0][e] == w->index[0][e - 1]) e++;
    return e;
}

INLINE int64_t padded_to_vectors(int64_t n) { return (n + VL - 1) / VL * VL; }

/* (rows, k) with rows that are whole vectors: the matrix itself, or a copy filled up with zeros */
static const float *whole_rows(int64_t k, int64_t rows, const float *from, int64_t row, float *space, int64_t *row_of) {
    int64_t wide = padded_to_vectors(k);
    *row_of = row;
    if (wide == k) return from;
    for (int64_t h = 0; h < rows; h++)
        for (int64_t i = 0; i < wide; i++) space[h * wide + i] = i < k ? from[h * row + i] : 0.0f;
    *row_of = wide;
    return space;
}

/* space: the largest of the weights turned round, (inputs or k) * 2H floats, then those of the factor */
void gated_forward(const Work *w) {
    int64_t hidden = 2 * w->hidden, most = w->inputs;
    for (int q = 0; q < SOURCES; q++) {
        if (!w->f[q]) continue;
        if (w->k[q] > most) most = w->k[q];
        turned(hidden, w->k[q], w->w_of[q], w->row_of[q], w->space);
        memset(w->p[q], 0, w->n[q] * hidden * sizeof(float));
        product(w->n[q], hidden, w->k[q], w->f[q], w->k[q], w->space, hidden, w->p[q], hidden);
    }
    float *w_factor = w->space + most * hidden;
    turned(hidden, w->inputs, w->w, w->row, w->space);
    if (w->parts) turned(w->width, w->parts, w->w_factor, w->parts, w_factor);
#pragma omp parallel for num_threads((int)w->threads) schedule(static, 1) if (w->threads > 1)
    for (int64_t t = 0; t < w->threads; t++) forward_range(w, cut(w, t), cut(w, t + 1), w->space, w_factor);
}

/* space: 2H * (widest input, padded) floats, 2H * C, parts * C, then (most rows of a source) * (widest, padded) */
void gated_backward(const Work *w) {
    int64_t hidden = 2 * w->hidden, padded = padded_to_vectors(w->inputs), most = padded;
    for (int q = 0; q < SOURCES; q++)
        if (w->f[q] && padded_to_vectors(w->k[q]) > most) most = padded_to_vectors(w->k[q]);
    float *second = w->space + hidden * most, *w_factor = second + hidden * w->width, *rows = w_factor + w->parts * w->width;
    int64_t in_row;
    const float *w_in = whole_rows(w->inputs, hidden, w->w, w->row, w->space, &in_row);
    if (w->later)
        for (int half = 0; half < 2; half++) turned(w->hidden, w->width, w->w2 + half * w->hidden * w->width, w->width, second + half * w->hidden * w->width);
    if (w->parts) turned(w->width, w->parts, w->w_factor, w->parts, w_factor);
    for (int q = 0; q < SOURCES; q++)
        if (w->f[q]) memset(w->p[q], 0, (q ? w->threads : 1) * w->n[q] * hidden * sizeof(float));
#pragma omp parallel for num_threads((int)w->threads) schedule(static, 1) if (w->threads > 1)
    for (int64_t t = 0; t < w->threads; t++) backward_range(w, cut(w, t), cut(w, t + 1), w_in, in_row, padded, second, w_factor, (int)t);
    for (int q = 0; q < SOURCES; q++) {
        if (!w->f[q]) continue;
        int64_t k = w->k[q], wide = padded_to_vectors(k), size = w->n[q] * hidden;
        for (int64_t t = 1; q && t < w->threads; t++)
            for (int64_t i = 0; i < size; i += VL) *(vf *)(w->p[q] + i) += *(const vf *)(w->p[q] + t * size + i);
        int64_t of_row;
        const float *w_of = whole_rows(k, hidden, w->w_of[q], w->row_of[q], w->space, &of_row);
        if (wide == k) product(w->n[q], wide, hidden, w->p[q], hidden, w_of, of_row, w->g_f[q], k);
        else {
            memset(rows, 0, w->n[q] * wide * sizeof(float));
            product(w->n[q], wide, hidden, w->p[q], hidden, w_of, of_row, rows, wide);
            for (int64_t r = 0; r < w->n[q]; r++)
                for (int64_t i = 0; i < k; i++) w->g_f[q][r * k + i] += rows[r * wide + i];
        }
        if (w->residual && w->summed && q == 0)
            for (int64_t i = 0; i < w->n[q] * k; i++) w->g_f[q][i] += w->g[i];
    }
}

/* For training: the activations alone, each with its derivative and the derivative of that, in one pass. n a multiple of nothing: the rest goes
   through a padded vector. */
#define EACH(n, ...)                                                 \
    for (int64_t k = 0; k < n; k += VL) {                            \
        int64_t lanes = n - k < VL ? n - k : VL;                     \
        __VA_ARGS__                                                  \
    }
INLINE vf take(const float *from, int64_t lanes) {
    vf x = all(0);
    if (lanes == VL) return *(const vf *)from;
    memcpy(&x, from, lanes * sizeof(float));
    return x;
}
INLINE void give(float *to, vf x, int64_t lanes) {
    if (lanes == VL) *(vf *)to = x;
    else memcpy(to, &x, lanes * sizeof(float));
}

void silu_forward(int64_t n, const float *x, float *y) { EACH(n, { vf a = take(x + k, lanes); give(y + k, a * sigmoid(a), lanes); }) }

/* g s'(x) */
void silu_slope(int64_t n, const float *x, const float *g, float *out) {
    EACH(n, {
        vf a = take(x + k, lanes), s = sigmoid(a);
        give(out + k, take(g + k, lanes) * s * (1.0f + a * (1.0f - s)), lanes);
    })
}

/* the derivative of v g s'(x) by x and by g */
void silu_curve(int64_t n, const float *x, const float *g, const float *v, float *by_x, float *by_g) {
    EACH(n, {
        vf a = take(x + k, lanes), s = sigmoid(a), up = take(v + k, lanes);
        give(by_g + k, up * s * (1.0f + a * (1.0f - s)), lanes);
        give(by_x + k, up * take(g + k, lanes) * s * (1.0f - s) * (2.0f + a * (1.0f - 2.0f * s)), lanes);
    })
}

/* phi(a) and its two derivatives: silu, or with `value` 0 the number itself */
INLINE vf phi_of(vf a, int64_t value, vf *first, vf *second) {
    *first = all(1.0f);
    *second = all(0);
    if (!value) return a;
    vf s = sigmoid(a);
    *first = s * (1.0f + a * (1.0f - s));
    *second = s * (1.0f - s) * (2.0f + a * (1.0f - 2.0f * s));
    return a * s;
}

void gate_forward(int64_t n, int64_t value, const float *a, const float *b, float *y) {
    EACH(n, {
        vf first, second, phi = phi_of(take(a + k, lanes), value, &first, &second);
        give(y + k, phi * sigmoid(take(b + k, lanes)), lanes);
    })
}

void gate_slope(int64_t n, int64_t value, const float *a, const float *b, const float *g, float *by_a, float *by_b) {
    EACH(n, {
        vf first, second, phi = phi_of(take(a + k, lanes), value, &first, &second), s = sigmoid(take(b + k, lanes)), up = take(g + k, lanes);
        give(by_a + k, up * first * s, lanes);
        give(by_b + k, up * phi * s * (1.0f - s), lanes);
    })
}

/* the derivative of g (v_a phi' sigma + v_b phi sigma') by a, b and g */
void gate_curve(int64_t n, int64_t value, const float *a, const float *b, const float *g, const float *v_a, const float *v_b, float *by_a, float *by_b, float *by_g) {
    EACH(n, {
        vf first, second, phi = phi_of(take(a + k, lanes), value, &first, &second), s = sigmoid(take(b + k, lanes));
        vf slope = s * (1.0f - s), bend = slope * (1.0f - 2.0f * s), up = take(g + k, lanes), one = take(v_a + k, lanes), two = take(v_b + k, lanes);
        give(by_g + k, one * first * s + two * phi * slope, lanes);
        give(by_a + k, up * (one * second * s + two * first * slope), lanes);
        give(by_b + k, up * (one * first * slope + two * phi * bend), lanes);
    })
}

/* rows (r, n) to mean 0 and deviation 1, n a multiple of VL */
void normalise_forward(int64_t rows, int64_t n, const float *x, float *y, float *inverse) {
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        vf sum = all(0), squares = all(0);
        for (int64_t k = 0; k < n; k += VL) sum += *(const vf *)(x + k);
        vf mean = total(sum) * (1.0f / n);
        for (int64_t k = 0; k < n; k += VL) {
            vf d = *(const vf *)(x + k) - mean;
            squares += d * d;
        }
        inverse[r] = 1.0f / __builtin_sqrtf(total(squares)[0] / n + 1e-5f);
        for (int64_t k = 0; k < n; k += VL) *(vf *)(y + k) = (*(const vf *)(x + k) - mean) * inverse[r];
    }
}

/* g by y -> g by x: inverse (g - <g> - y <g y>) */
void normalise_slope(int64_t rows, int64_t n, const float *y, const float *inverse, const float *g, float *out) {
    for (int64_t r = 0; r < rows; r++, y += n, g += n, out += n) {
        vf sum = all(0), along = all(0);
        for (int64_t k = 0; k < n; k += VL) {
            sum += *(const vf *)(g + k);
            along += *(const vf *)(g + k) * *(const vf *)(y + k);
        }
        vf mean = total(sum) * (1.0f / n), slope = total(along) * (1.0f / n);
        for (int64_t k = 0; k < n; k += VL) *(vf *)(out + k) = (*(const vf *)(g + k) - mean - *(const vf *)(y + k) * slope) * inverse[r];
    }
}

/* the derivative of v times that by x and by g */
void normalise_curve(int64_t rows, int64_t n, const float *y, const float *inverse, const float *g, const float *v, float *by_x, float *by_g) {
    for (int64_t r = 0; r < rows; r++, y += n, g += n, v += n, by_x += n, by_g += n) {
        vf g_sum = all(0), v_sum = all(0), g_along = all(0), v_along = all(0), both = all(0);
        for (int64_t k = 0; k < n; k += VL) {
            vf one = *(const vf *)(g + k), two = *(const vf *)(v + k), at = *(const vf *)(y + k);
            g_sum += one;
            v_sum += two;
            g_along += one * at;
            v_along += two * at;
            both += one * two;
        }
        float part = 1.0f / n;
        vf g_mean = total(g_sum) * part, v_mean = total(v_sum) * part, a = total(g_along) * part, b = total(v_along) * part;
        vf s = total(both) * part - g_mean * v_mean - a * b;
        float square = inverse[r] * inverse[r];
        for (int64_t k = 0; k < n; k += VL) {
            vf at = *(const vf *)(y + k), one = *(const vf *)(g + k) - g_mean - at * a, two = *(const vf *)(v + k) - v_mean - at * b;
            *(vf *)(by_x + k) = -(at * s + b * one + a * two) * square;
            *(vf *)(by_g + k) = two * inverse[r];
        }
    }
}
