/* Sums over edges of weight x turn x neighbour, and their derivatives (edge_product.py):

       A_i[m3, k] += sum_e R_e[p, k] sum_m1 T_e[m1, m3] h_j[m1, k]            for every path p and edge e: j -> i

   S = <A, G> is linear in each of R, T, h, G. `sums` is dS/dG, `slopes` the other three, `second` the derivatives of
   S(R2, T, h, G) + S(R, T2, h, G) + S(R, T, h2, G). Nothing of the size edges x channels x components is ever stored.

   Weights may come from a table of cubic Hermite pieces over the length instead of R; `slopes` then gives the derivative by the length.

   The file includes itself once per number type and vector width. */
#ifndef REAL
#include "vectors.h"
#include <stdlib.h>
#define MOST 24  /* inputs, outputs */
#define DIM 13   /* components */
#define UNROLL _Pragma("GCC unroll 16")

typedef struct {
    int32_t source, rows, columns, target, slot, slots, start, plain;
} Path;

typedef struct {
    int64_t edges, atoms, channels, paths, turns, threads, inputs, outputs;
    const int64_t *receiver, *sender;
    const Path *path;
    const void *r, *t, *h[MOST], *g[MOST];
    const void *r2, *t2, *h2[MOST];
    void *a[MOST];                 /* results per receiver */
    void *g_r, *g_t, *g_h[MOST];   /* results per edge, per edge, per sender (one for each thread) */
    const void *table, *length;    /* (nodes, 2, paths x channels): values and slopes times the step */
    void *g_length;
    int64_t nodes;
    double step;
} Work;

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

/* first edge whose receiver is not below an atom */
static int64_t first_of(const Work *w, int64_t atom) {
    int64_t low = 0, high = w->edges;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (w->receiver[middle] < atom) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* whether receivers never decrease and all ends are atoms: what everything here relies on */
int64_t edge_sound(int64_t edges, int64_t atoms, const int64_t *receiver, const int64_t *sender) {
    int64_t wrong = 0, before = 0;
    for (int64_t e = 0; e < edges; e++) {
        wrong |= (receiver[e] < before) | (receiver[e] >= atoms) | (sender[e] < 0) | (sender[e] >= atoms);
        before = receiver[e];
    }
    return !wrong;
}

/* atoms are shared out so that threads have as many edges each */
static int64_t begin_of(const Work *w, int64_t thread) {
    if (thread <= 0 || !w->edges) return thread <= 0 ? 0 : w->atoms;
    if (thread >= w->threads) return w->atoms;
    return w->receiver[w->edges * thread / w->threads];
}

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

#define ENTRY(name)                                                                                        \
    static void CAT(name, _range_f)(const Work *w, int64_t thread, int64_t from, int64_t to) {             \
        int64_t whole = w->channels / (VB / 4) * (VB / 4);                                                 \
        CAT(name, _f)(w, thread, from, to, 0, whole);                                                      \
        CAT(name, _f1)(w, thread, from, to, whole, w->channels);                                           \
    }                                                                                                      \
    static void CAT(name, _range_d)(const Work *w, int64_t thread, int64_t from, int64_t to) {             \
        int64_t whole = w->channels / (VB / 8) * (VB / 8);                                                 \
        CAT(name, _d)(w, thread, from, to, 0, whole);                                                      \
        CAT(name, _d1)(w, thread, from, to, whole, w->channels);                                           \
    }                                                                                                      \
    void CAT(edge_, name)(const Work *w, int64_t is_double) {                                              \
        _Pragma("omp parallel for num_threads(w->threads) schedule(static, 1) if (w->threads > 1)")        \
        for (int64_t thread = 0; thread < w->threads; thread++) {                                          \
            int64_t from = begin_of(w, thread), to = begin_of(w, thread + 1);                              \
            if (is_double) CAT(name, _range_d)(w, thread, from, to);                                       \
            else CAT(name, _range_f)(w, thread, from, to);                                                 \
        }                                                                                                  \
    }
ENTRY(sums)
ENTRY(slopes)
ENTRY(second)

#else /* ------------------------------------------------------------------------------------------------ one type and width */

#define V CAT(vec, SUFFIX)
#define FN(name) CAT(name, SUFFIX)
#if WIDTH > 1
typedef REAL V __attribute__((vector_size(VB), aligned(sizeof(REAL))));
INLINE REAL FN(total)(V x) {
    REAL part[WIDTH];
    memcpy(part, &x, sizeof x);
    for (int half = WIDTH / 2; half >= 1; half /= 2)
        for (int k = 0; k < half; k++) part[k] += part[k + half];
    return part[0];
}
#else
typedef REAL V;
INLINE REAL FN(total)(V x) { return x; }
#endif
#define AT(p) (*(V *)(p))
#define IN(p) (*(const V *)(p))

/* where an edge stands in the table: two nodes' values and slopes, and the factors of value and derivative */
typedef struct {
    const REAL *low, *high;
    REAL v0, s0, v1, s1, dv0, ds0, dv1, ds1;
} FN(Place);

INLINE FN(Place) FN(place)(const Work *w, int64_t e) {
    FN(Place) q;
    REAL u = ((const REAL *)w->length)[e] * (REAL)(1.0 / w->step);
    int beyond = u > (REAL)(w->nodes - 1); /* what stands at the end of the table stands there, without a slope */
    if (beyond) u = (REAL)(w->nodes - 1);
    int64_t node = (int64_t)u;
    if (node > w->nodes - 2) node = w->nodes - 2;
    REAL s = u - node, o = 1 - s, per = beyond ? 0 : (REAL)(1.0 / w->step);
    int64_t row = 2 * w->paths * w->channels;
    q.low = (const REAL *)w->table + node * row;
    q.high = q.low + row;
    q.v0 = (1 + 2 * s) * o * o, q.s0 = s * o * o, q.v1 = s * s * (3 - 2 * s), q.s1 = -s * s * o;
    q.dv0 = -6 * s * o * per, q.ds0 = o * (1 - 3 * s) * per, q.dv1 = 6 * s * o * per, q.ds1 = s * (3 * s - 2) * per;
    return q;
}

INLINE V FN(weight)(const FN(Place) *q, int64_t at, int64_t row) {
    return q->v0 * IN(q->low + at) + q->s0 * IN(q->low + row + at) + q->v1 * IN(q->high + at) + q->s1 * IN(q->high + row + at);
}

/* --- sums: one path, `nv` vectors of channels, all edges of an atom ------------------------------------------------------------ */
INLINE void FN(sums_path)(const Work *w, const Path *p, int rows, int columns, int plain, int nv, const FN(Place) *places,
                          int64_t i, int64_t first, int64_t last, int64_t c) {
    int64_t K = w->channels, row = w->paths * K, at = (p - w->path) * K + c, ahead = (last - first) * row;
    const REAL *h = (const REAL *)w->h[p->source] + c, *r = (const REAL *)w->r, *t = (const REAL *)w->t + p->start;
    V acc[2][DIM];
    for (int v = 0; v < nv; v++) UNROLL for (int b = 0; b < columns; b++) acc[v][b] = (V){0};
    for (int64_t e = first; e < last; e++) {
        const REAL *x = h + w->sender[e] * rows * K, *turn = t + e * w->turns;
        UNROLL for (int v = 0; v < nv; v++) {
            V weight;
            if (w->table) weight = FN(weight)(places + (e - first), at + v * WIDTH, row);
            else {
                weight = IN(r + e * row + at + v * WIDTH);
                __builtin_prefetch(r + e * row + at + v * WIDTH + ahead, 0, 2);
            }
            UNROLL for (int a = 0; a < rows; a++) {
                V y = weight * IN(x + a * K + v * WIDTH);
                if (plain) acc[v][a] += y;
                else UNROLL for (int b = 0; b < columns; b++) acc[v][b] += turn[a * columns + b] * y;
            }
        }
    }
    REAL *out = (REAL *)w->a[p->target] + (i * columns * p->slots + p->slot) * K + c;
    for (int v = 0; v < nv; v++) UNROLL for (int b = 0; b < columns; b++) AT(out + b * p->slots * K + v * WIDTH) += acc[v][b];
}

/* --- slopes: one path of one edge, all channels ---------------------------------------------------------------------------------- */
INLINE V FN(slopes_path)(const Work *w, const Path *p, int rows, int columns, int plain, const FN(Place) *q, int64_t e, int64_t i,
                         int64_t thread, int64_t from, int64_t to) {
    int64_t K = w->channels, row = w->paths * K, j = w->sender[e], base = (p - w->path) * K;
    const REAL *h = (const REAL *)w->h[p->source] + j * rows * K, *turn = (const REAL *)w->t + e * w->turns + p->start;
    const REAL *g = (const REAL *)w->g[p->target] + (i * columns * p->slots + p->slot) * K;
    const REAL *r = q ? 0 : (const REAL *)w->r + e * row + base;
    REAL *g_r = q || !w->g_r ? 0 : (REAL *)w->g_r + e * row + base;
    REAL *g_h = w->g_h[p->source] ? (REAL *)w->g_h[p->source] + (thread * w->atoms + j) * rows * K : 0;
    V g_t[DIM * DIM], along = (V){0};
    if (!plain) UNROLL for (int ab = 0; ab < rows * columns; ab++) g_t[ab] = (V){0};
    for (int64_t c = from; c < to; c += WIDTH) {
        V weight, change = (V){0}, y[DIM];
        if (q) {
            int64_t at = base + c;
            V a = IN(q->low + at), b = IN(q->low + row + at), d = IN(q->high + at), f = IN(q->high + row + at);
            weight = q->v0 * a + q->s0 * b + q->v1 * d + q->s1 * f;
            change = q->dv0 * a + q->ds0 * b + q->dv1 * d + q->ds1 * f;
        } else weight = IN(r + c);
        V g_weight = (V){0};
        UNROLL for (int b = 0; b < columns; b++) y[b] = IN(g + b * p->slots * K + c);
        UNROLL for (int a = 0; a < rows; a++) {
            V x = IN(h + a * K + c), turned;
            if (plain) turned = y[a];
            else {
                turned = (V){0};
                V both = weight * x;
                UNROLL for (int b = 0; b < columns; b++) {
                    turned += turn[a * columns + b] * y[b];
                    g_t[a * columns + b] += both * y[b];
                }
            }
            g_weight += x * turned;
            if (g_h) AT(g_h + a * K + c) += weight * turned;
        }
        if (q) along += g_weight * change;
        else if (g_r) AT(g_r + c) = g_weight;
    }
    if (!plain && w->g_t) {
        REAL *out = (REAL *)w->g_t + e * w->turns + p->start;
        for (int ab = 0; ab < rows * columns; ab++) out[ab] += FN(total)(g_t[ab]);
    }
    return along;
}

/* --- second: one path of one edge, all channels ---------------------------------------------------------------------------------- */
INLINE void FN(second_path)(const Work *w, const Path *p, int rows, int columns, int plain, int64_t e, int64_t i, int64_t thread, int64_t from,
                            int64_t to) {
    int64_t K = w->channels, at = (e * w->paths + (p - w->path)) * K, j = w->sender[e], step = p->slots * K;
    const REAL *h = (const REAL *)w->h[p->source] + j * rows * K, *h2 = (const REAL *)w->h2[p->source] + j * rows * K;
    const REAL *t = (const REAL *)w->t + e * w->turns + p->start, *t2 = (const REAL *)w->t2 + e * w->turns + p->start;
    const REAL *g = (const REAL *)w->g[p->target] + (i * columns * p->slots + p->slot) * K;
    REAL *g_g = (REAL *)w->a[p->target] + (i * columns * p->slots + p->slot) * K;
    REAL *g_h = (REAL *)w->g_h[p->source] + (thread * w->atoms + j) * rows * K;
    V g_t[DIM * DIM];
    if (!plain) UNROLL for (int ab = 0; ab < rows * columns; ab++) g_t[ab] = (V){0};
    for (int64_t c = from; c < to; c += WIDTH) {
        V weight = IN((const REAL *)w->r + at + c), weight2 = IN((const REAL *)w->r2 + at + c), g_weight = (V){0}, y[DIM], z[DIM];
        UNROLL for (int b = 0; b < columns; b++) y[b] = IN(g + b * step + c), z[b] = (V){0};
        UNROLL for (int a = 0; a < rows; a++) {
            V x = IN(h + a * K + c), x2 = IN(h2 + a * K + c), both = weight * x, mixed = weight2 * x + weight * x2;
            V turned = (V){0}, turned2 = (V){0};
            if (plain) turned = y[a], z[a] = mixed;
            else
                UNROLL for (int b = 0; b < columns; b++) {
                    turned += t[a * columns + b] * y[b];
                    turned2 += t2[a * columns + b] * y[b];
                    z[b] += t[a * columns + b] * mixed + t2[a * columns + b] * both;
                    g_t[a * columns + b] += mixed * y[b];
                }
            g_weight += x * turned2 + x2 * turned;
            AT(g_h + a * K + c) += weight2 * turned + weight * turned2;
        }
        AT((REAL *)w->g_r + at + c) = g_weight;
        UNROLL for (int b = 0; b < columns; b++) AT(g_g + b * step + c) += z[b];
    }
    if (!plain) {
        REAL *out = (REAL *)w->g_t + e * w->turns + p->start;
        for (int ab = 0; ab < rows * columns; ab++) out[ab] += FN(total)(g_t[ab]);
    }
}

/* paths of the usual degrees are compiled with their numbers of components known */
#if WIDTH > 1
#define CASE(x, y, ...) if (p->rows == x && p->columns == y && !p->plain) { DO(x, y, 0) } else
#define SAME(x) if (p->rows == x && p->plain) { DO(x, x, 1) } else
#define EACH SAME(1) SAME(3) SAME(5) CASE(1, 1) CASE(1, 3) CASE(1, 5) CASE(1, 7) CASE(3, 1) CASE(3, 3) CASE(3, 5) CASE(3, 7) \
    CASE(5, 1) CASE(5, 3) CASE(5, 5) { DO(p->rows, p->columns, p->plain) }
#else
#define EACH { DO(p->rows, p->columns, p->plain) }
#endif

static __attribute__((noinline)) void FN(sums_wide)(const Work *w, const Path *p, const FN(Place) *places, int64_t i, int64_t first, int64_t last,
                                                    int64_t c) {
#define DO(x, y, same) FN(sums_path)(w, p, x, y, same, 2, places, i, first, last, c);
    EACH
#undef DO
}

static __attribute__((noinline)) void FN(sums_narrow)(const Work *w, const Path *p, const FN(Place) *places, int64_t i, int64_t first, int64_t last,
                                                      int64_t c) {
    FN(sums_path)(w, p, p->rows, p->columns, p->plain, 1, places, i, first, last, c);
}

static void FN(sums)(const Work *w, int64_t thread, int64_t from, int64_t to, int64_t low, int64_t high) {
    (void)thread;
    int64_t e = first_of(w, from), room = 0;
    FN(Place) *places = 0;
    if (low >= high) return;
    for (int64_t i = from; i < to; i++) {
        int64_t first = e, c = low;
        while (e < w->edges && w->receiver[e] == i) e++;
        if (e == first) continue;
        if (w->table) {
            if (e - first > room) places = realloc(places, (room = 2 * (e - first)) * sizeof *places);
            for (int64_t q = first; q < e; q++) places[q - first] = FN(place)(w, q);
        }
        for (; c + 2 * WIDTH <= high; c += 2 * WIDTH)
            for (const Path *p = w->path; p < w->path + w->paths; p++) FN(sums_wide)(w, p, places, i, first, e, c);
        for (; c < high; c += WIDTH)
            for (const Path *p = w->path; p < w->path + w->paths; p++) FN(sums_narrow)(w, p, places, i, first, e, c);
    }
    free(places);
}

static __attribute__((noinline)) V FN(slopes_of)(const Work *w, const Path *p, const FN(Place) *q, int64_t e, int64_t i, int64_t thread,
                                                 int64_t low, int64_t high) {
#define DO(x, y, same) return FN(slopes_path)(w, p, x, y, same, q, e, i, thread, low, high);
    EACH
#undef DO
}

static void FN(slopes)(const Work *w, int64_t thread, int64_t from, int64_t to, int64_t low, int64_t high) {
    if (low >= high) return;
    int64_t last = first_of(w, to);
    for (int64_t e = first_of(w, from); e < last; e++) {
        FN(Place) q;
        V along = (V){0};
        if (w->table) q = FN(place)(w, e);
        for (const Path *p = w->path; p < w->path + w->paths; p++)
            along += FN(slopes_of)(w, p, w->table ? &q : 0, e, w->receiver[e], thread, low, high);
        if (w->table) ((REAL *)w->g_length)[e] += FN(total)(along);
    }
}

static __attribute__((noinline)) void FN(second_of)(const Work *w, const Path *p, int64_t e, int64_t i, int64_t thread, int64_t low, int64_t high) {
#define DO(x, y, same) FN(second_path)(w, p, x, y, same, e, i, thread, low, high);
    EACH
#undef DO
}

static void FN(second)(const Work *w, int64_t thread, int64_t from, int64_t to, int64_t low, int64_t high) {
    if (low >= high) return;
    int64_t last = first_of(w, to);
    for (int64_t e = first_of(w, from); e < last; e++)
        for (const Path *p = w->path; p < w->path + w->paths; p++) FN(second_of)(w, p, e, w->receiver[e], thread, low, high);
}

#undef EACH
#undef CASE
#undef SAME
#undef V
#undef FN
#undef AT
#undef IN
#undef REAL
#undef SUFFIX
#undef WIDTH
#endif
