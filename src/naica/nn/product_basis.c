/* Sparse polynomials of an atom's components, channel by channel, and their derivatives (product_basis.py):

       B[n, o, k] = sum over terms t of result o:  c[z_n, t, k] x[n, a_t, k] x[n, b_t, k] x[n, c_t, k]

   Terms of lower order have the component `components`, which is one. S = <B, g>: `values` gives B, `slopes` the derivatives of S by x and c,
   `second` those of S' = <dS/dx, x2> + <dS/dc, c2>. Channels are outermost: the coefficients of a few of them stay in the cache while all
   atoms pass, and threads that share out channels never write to the same place.

   The file includes itself once per number type and vector width. */
#ifndef REAL
#include "vectors.h"
#define MOST 64 /* components and results */

typedef struct {
    int32_t result, a, b, c;
} Term;

typedef struct {
    int64_t atoms, components, results, terms, channels, threads;
    const int64_t *row;
    const Term *term;
    const void *x, *coefficients, *g, *x2, *c2;
    void *values, *g_x, *g_c, *g_g;
} Work;

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

#define REAL float
#define SUFFIX _f
#define WIDTH (VB / 4)
#include __FILE__
#define REAL double
#define SUFFIX _d
#define WIDTH (VB / 8)
#include __FILE__
#define REAL float
#define SUFFIX _f1
#define WIDTH 1
#include __FILE__
#define REAL double
#define SUFFIX _d1
#define WIDTH 1
#include __FILE__

#define ENTRY(name)                                                                                             \
    void CAT(basis_, name)(const Work *w, int64_t is_double) {                                                  \
        int64_t wide = is_double ? VB / 8 : VB / 4, pieces = w->channels / wide, rest = w->channels % wide;     \
        _Pragma("omp parallel for num_threads(w->threads) schedule(static) if (w->threads > 1)")                \
        for (int64_t piece = 0; piece < pieces; piece++) {                                                      \
            if (is_double) CAT(name, _d)(w, piece * wide);                                                      \
            else CAT(name, _f)(w, piece * wide);                                                                \
        }                                                                                                       \
        for (int64_t k = w->channels - rest; k < w->channels; k++) {                                            \
            if (is_double) CAT(name, _d1)(w, k);                                                                \
            else CAT(name, _f1)(w, k);                                                                          \
        }                                                                                                       \
    }
ENTRY(values)
ENTRY(slopes)
ENTRY(second)

#else /* ------------------------------------------------------------------------------------------------ one type and width */

#define V CAT(vec, SUFFIX)
#define FN(name) CAT(name, SUFFIX)
#if WIDTH > 1
typedef REAL V __attribute__((vector_size(VB), aligned(sizeof(REAL))));
#else
typedef REAL V;
#endif
#define AT(p) (*(V *)(p))
#define IN(p) (*(const V *)(p))

/* components of an atom, followed by a last one for terms of lower order */
INLINE void FN(take)(V *out, const void *from, int64_t atom, int64_t rows, int64_t channels, int64_t k, REAL last) {
    const REAL *p = (const REAL *)from + atom * rows * channels + k;
    for (int64_t m = 0; m < rows; m++) out[m] = IN(p + m * channels);
    out[rows] = (V){0} + last;
}

INLINE void FN(give)(void *to, const V *from, int64_t atom, int64_t rows, int64_t channels, int64_t k) {
    REAL *p = (REAL *)to + atom * rows * channels + k;
    for (int64_t m = 0; m < rows; m++) AT(p + m * channels) = from[m];
}

static void FN(values)(const Work *w, int64_t k) {
    V x[MOST + 1], b[MOST + 1];
    for (int64_t n = 0; n < w->atoms; n++) {
        const REAL *c = (const REAL *)w->coefficients + w->row[n] * w->terms * w->channels + k;
        FN(take)(x, w->x, n, w->components, w->channels, k, 1);
        for (int64_t o = 0; o < w->results; o++) b[o] = (V){0};
        const Term *t = w->term, *end = t + w->terms;
        while (t < end) { /* terms of one result, and of one pair of factors, follow each other */
            int32_t o = t->result;
            V sum = (V){0};
            while (t < end && t->result == o) {
                int32_t p = t->a, q = t->b;
                V inner = (V){0};
                for (; t < end && t->result == o && t->a == p && t->b == q; t++, c += w->channels) inner += IN(c) * x[t->c];
                sum += inner * (x[p] * x[q]);
            }
            b[o] += sum;
        }
        FN(give)(w->values, b, n, w->results, w->channels, k);
    }
}

static void FN(slopes)(const Work *w, int64_t k) {
    V x[MOST + 1], g[MOST + 1], g_x[MOST + 1];
    for (int64_t n = 0; n < w->atoms; n++) {
        int64_t at = w->row[n] * w->terms * w->channels + k;
        const REAL *c = (const REAL *)w->coefficients + at;
        REAL *g_c = w->g_c ? (REAL *)w->g_c + at : 0;
        FN(take)(x, w->x, n, w->components, w->channels, k, 1);
        FN(take)(g, w->g, n, w->results, w->channels, k, 0);
        for (int64_t m = 0; m <= w->components; m++) g_x[m] = (V){0};
        const Term *t = w->term, *end = t + w->terms;
        while (t < end) {
            int32_t o = t->result, p = t->a, q = t->b;
            V pair = x[p] * x[q], up = g[o] * pair, inner = (V){0};
            for (; t < end && t->result == o && t->a == p && t->b == q; t++, c += w->channels) {
                V y = x[t->c];
                inner += IN(c) * y;
                g_x[t->c] += IN(c) * up;
                if (g_c) AT(g_c) += up * y, g_c += w->channels;
            }
            inner *= g[o];
            g_x[p] += inner * x[q];
            g_x[q] += inner * x[p];
        }
        if (w->g_x) FN(give)(w->g_x, g_x, n, w->components, w->channels, k);
    }
}

static void FN(second)(const Work *w, int64_t k) {
    V x[MOST + 1], y[MOST + 1], g[MOST + 1], g_x[MOST + 1], g_g[MOST + 1];
    for (int64_t n = 0; n < w->atoms; n++) {
        int64_t at = w->row[n] * w->terms * w->channels + k;
        const REAL *c = (const REAL *)w->coefficients + at, *c2 = w->c2 ? (const REAL *)w->c2 + at : 0;
        REAL *g_c = w->g_c ? (REAL *)w->g_c + at : 0;
        FN(take)(x, w->x, n, w->components, w->channels, k, 1);
        FN(take)(y, w->x2, n, w->components, w->channels, k, 0);
        FN(take)(g, w->g, n, w->results, w->channels, k, 0);
        for (int64_t m = 0; m <= w->components; m++) g_x[m] = (V){0};
        for (int64_t o = 0; o < w->results; o++) g_g[o] = (V){0};
        const Term *t = w->term, *end = t + w->terms;
        while (t < end) {
            int32_t o = t->result, p = t->a, q = t->b;
            /* the pair and how it changes; what the pair is multiplied by, and how that changes */
            V pair = x[p] * x[q], pair2 = y[p] * x[q] + x[p] * y[q], up = g[o] * pair, up2 = g[o] * pair2, inner = (V){0}, inner2 = (V){0};
            for (; t < end && t->result == o && t->a == p && t->b == q; t++, c += w->channels) {
                V z = x[t->c], z2 = y[t->c];
                inner += IN(c) * z;
                inner2 += IN(c) * z2;
                g_x[t->c] += IN(c) * up2;
                if (c2) {
                    inner2 += IN(c2) * z;
                    g_x[t->c] += IN(c2) * up;
                    c2 += w->channels;
                }
                if (g_c) AT(g_c) += up2 * z + up * z2, g_c += w->channels;
            }
            g_g[o] += inner2 * pair + inner * pair2;
            inner *= g[o], inner2 *= g[o];
            g_x[p] += inner2 * x[q] + inner * y[q];
            g_x[q] += inner2 * x[p] + inner * y[p];
        }
        FN(give)(w->g_x, g_x, n, w->components, w->channels, k);
        FN(give)(w->g_g, g_g, n, w->results, w->channels, k);
    }
}

#undef V
#undef FN
#undef AT
#undef IN
#undef REAL
#undef SUFFIX
#undef WIDTH
#endif
