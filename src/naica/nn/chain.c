/* Dense layers with softplus between them along the edges of a batch, a few edges at a time within the caches:

       x_0 = e,  x_k = softplus(W_k x_(k-1) + b_k),  the last one linear or activated, and at one layer rows of the two ends are added.

   out = e + x_L - lift, total[receiver] += (x_L - lift) * times. The plain version (megnet.py) is what this must equal.
   Widths are multiples of the vector's length. Weights come as torch keeps them, (out, in). */
#include "vectors.h"

#if defined(__AVX512F__)
#define NV 4
#else
#define NV 2
#endif
#define ROWS 6
#define TILE 96
#define MOST 128
#define LAYERS 6

typedef struct {
    int64_t edges, atoms, layers, joins, activated, threads;
    int64_t width[LAYERS + 1];
    const int64_t *receiver, *sender;
    const float *e, *times, *w[LAYERS], *b[LAYERS], *of_receivers, *of_senders;
    float *x[LAYERS]; /* what comes out of each softplus, (E, width[k + 1]), or nothing to keep */
    float *out, *total;
    float lift;
    /* backwards */
    const float *g_out, *g_total;
    float *g_e, *g_receivers, *g_senders, *g_w[LAYERS], *g_b[LAYERS];
    float *space; /* the weights turned round */
} Chain;

/* out (rows, nv vectors) += left (rows, k) right (k, n): rows of left are `row` apart, its columns `column` apart */
INLINE void block(int rows, int nv, int64_t k, const float *left, int64_t row, int64_t column, const float *right, int64_t l_right, float *out, int64_t l_out) {
    vf sum[ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++) sum[r][v] = *(const vf *)(out + r * l_out + v * VL);
    for (int64_t i = 0; i < k; i++) {
        vf b[NV];
        for (int v = 0; v < nv; v++) b[v] = *(const vf *)(right + i * l_right + v * VL);
        for (int r = 0; r < rows; r++) {
            vf a = all(left[r * row + i * column]);
            for (int v = 0; v < nv; v++) sum[r][v] += a * b[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++) *(vf *)(out + r * l_out + v * VL) = sum[r][v];
}

static void product(int64_t m, int64_t n, int64_t k, const float *left, int64_t row, int64_t column, const float *right, int64_t l_right, float *out, int64_t l_out) {
    int64_t c = 0;
    for (; c + NV * VL <= n; c += NV * VL) {
        int64_t r = 0;
        for (; r + ROWS <= m; r += ROWS) block(ROWS, NV, k, left + r * row, row, column, right + c, l_right, out + r * l_out + c, l_out);
        for (; r < m; r++) block(1, NV, k, left + r * row, row, column, right + c, l_right, out + r * l_out + c, l_out);
    }
    for (; c + 2 * VL <= n; c += 2 * VL) {
        int64_t r = 0;
        for (; r + ROWS <= m; r += ROWS) block(ROWS, 2, k, left + r * row, row, column, right + c, l_right, out + r * l_out + c, l_out);
        for (; r < m; r++) block(1, 2, k, left + r * row, row, column, right + c, l_right, out + r * l_out + c, l_out);
    }
    for (; c < n; c += VL)
        for (int64_t r = 0; r < m; r++) block(1, 1, k, left + r * row, row, column, right + c, l_right, out + r * l_out + c, l_out);
}

/* where the edges of a thread begin: all edges of one receiver go to one thread */
static int64_t cut(const Chain *s, int64_t thread) {
    int64_t e = s->edges * thread / s->threads;
    while (e > 0 && e < s->edges && s->receiver[e] == s->receiver[e - 1]) e++;
    return e;
}

static void forward_range(const Chain *s, int64_t from, int64_t to) {
    float own[2][TILE * MOST] __attribute__((aligned(64)));
    int64_t last = s->layers - 1, width = s->width[s->layers];
    for (int64_t start = from; start < to; start += TILE) {
        int64_t rows = to - start < TILE ? to - start : TILE;
        const float *x = s->e + start * s->width[0], *turned = s->space;
        for (int64_t l = 0; l <= last; l++) {
            int64_t in = s->width[l], out = s->width[l + 1];
            float *z = s->x[l] ? s->x[l] + start * out : own[l & 1];
            for (int64_t r = 0; r < rows; r++) {
                if (l == s->joins) {
                    const float *a = s->of_receivers + s->receiver[start + r] * out, *b = s->of_senders + s->sender[start + r] * out;
                    for (int64_t c = 0; c < out; c += VL) *(vf *)(z + r * out + c) = *(const vf *)(a + c) + *(const vf *)(b + c);
                } else memcpy(z + r * out, s->b[l], out * sizeof(float));
            }
            product(rows, out, in, x, in, 1, turned, out, z, out);
            if (l < last || s->activated)
                for (int64_t c = 0; c < rows * out; c += VL) *(vf *)(z + c) = softplus_of(*(vf *)(z + c));
            turned += in * out;
            x = z;
        }
        for (int64_t r = 0; r < rows; r++) {
            int64_t e = start + r;
            float *to_atom = s->total + s->receiver[e] * width, times = s->times ? s->times[e] : 1.0f;
            for (int64_t c = 0; c < width; c += VL) {
                vf y = *(const vf *)(x + r * width + c) - s->lift;
                *(vf *)(s->out + e * width + c) = *(const vf *)(s->e + e * width + c) + y;
                *(vf *)(to_atom + c) += y * times;
            }
        }
    }
}

void chain_forward(const Chain *s) {
    float *turned = s->space;
    for (int64_t l = 0; l < s->layers; l++) {
        int64_t in = s->width[l], out = s->width[l + 1];
        for (int64_t i = 0; i < in; i++)
            for (int64_t o = 0; o < out; o++) turned[i * out + o] = s->w[l][o * in + i];
        turned += in * out;
    }
#pragma omp parallel for num_threads((int)s->threads) schedule(static, 1) if (s->threads > 1)
    for (int64_t t = 0; t < s->threads; t++) forward_range(s, cut(s, t), cut(s, t + 1));
}

/* one thread: gradients of weights are sums over all edges */
void chain_backward(const Chain *s) {
    float own[2][TILE * MOST] __attribute__((aligned(64)));
    int64_t last = s->layers - 1, width = s->width[s->layers];
    for (int64_t start = 0; start < s->edges; start += TILE) {
        int64_t rows = s->edges - start < TILE ? s->edges - start : TILE;
        float *g = own[0];
        for (int64_t r = 0; r < rows; r++) {
            int64_t e = start + r;
            const float *from_atom = s->g_total + s->receiver[e] * width;
            float times = s->times ? s->times[e] : 1.0f;
            for (int64_t c = 0; c < width; c += VL)
                *(vf *)(g + r * width + c) = *(const vf *)(s->g_out + e * width + c) + *(const vf *)(from_atom + c) * times;
        }
        for (int64_t l = last; l >= 0; l--) {
            int64_t in = s->width[l], out = s->width[l + 1];
            if (l < last || s->activated) {
                const float *y = s->x[l] + start * out;
                for (int64_t c = 0; c < rows * out; c += VL) *(vf *)(g + c) *= 1.0f - exp_down(-*(const vf *)(y + c));
            }
            const float *came = (l ? s->x[l - 1] : s->e) + start * in;
            product(out, in, rows, g, 1, out, came, in, s->g_w[l], in);
            for (int64_t r = 0; r < rows; r++) {
                const float *row = g + r * out;
                if (l == s->joins) {
                    float *a = s->g_receivers + s->receiver[start + r] * out, *b = s->g_senders + s->sender[start + r] * out;
                    for (int64_t c = 0; c < out; c += VL) {
                        *(vf *)(a + c) += *(const vf *)(row + c);
                        *(vf *)(b + c) += *(const vf *)(row + c);
                    }
                } else
                    for (int64_t c = 0; c < out; c += VL) *(vf *)(s->g_b[l] + c) += *(const vf *)(row + c);
            }
            float *next = l ? (g == own[0] ? own[1] : own[0]) : s->g_e + start * in;
            if (l) memset(next, 0, rows * in * sizeof(float));
            else memcpy(next, s->g_out + start * in, rows * in * sizeof(float));
            product(rows, in, out, g, out, 1, s->w[l], in, next, in);
            g = next;
        }
    }
}
