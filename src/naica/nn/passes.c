/* Single passes over the memory of edges, for what torch needs several: softplus and its slope, gates summed on atoms.
   The plain versions beside the callers (softplus.py, gate.py) are what these must equal.

   NaN and infinity come out as torch's own do. */
#include "vectors.h"

/* the logistic function shares its exponential with softplus */
INLINE vf logistic(vf x) {
    vf t = exp_down(-size(x));
    return choose(x < all(0.0f), t, all(1.0f)) / (1.0f + t);
}
INLINE void both(vf x, vf *soft, vf *slope) {
    vf t = exp_down(-size(x));
    *soft = positive(x) + log_one_and(t);
    *slope = choose(x < all(0.0f), t, all(1.0f)) / (1.0f + t);
}

INLINE vf load(const float *from, int64_t n) {
    if (n >= VL) return *(const vf *)from;
    vf x = {};
    memcpy(&x, from, n * sizeof(float));
    return x;
}
INLINE void store(float *to, vf x, int64_t n) {
    if (n >= VL) *(vf *)to = x;
    else memcpy(to, &x, n * sizeof(float));
}

#define CHUNK 16384
#define CHUNKS(n) (((n) + CHUNK - 1) / CHUNK)

void softplus_forward(const float *x, float *y, int64_t n, int64_t threads) {
#pragma omp parallel for num_threads((int)threads) if (threads > 1)
    for (int64_t c = 0; c < CHUNKS(n); c++) {
        int64_t end = (c + 1) * CHUNK < n ? (c + 1) * CHUNK : n;
        for (int64_t k = c * CHUNK; k < end; k += VL) store(y + k, softplus_of(load(x + k, end - k)), end - k);
    }
}

/* the slope is 1 - exp(-y): from the result alone */
void softplus_backward(const float *y, const float *g, float *out, int64_t n, int64_t threads) {
#pragma omp parallel for num_threads((int)threads) if (threads > 1)
    for (int64_t c = 0; c < CHUNKS(n); c++) {
        int64_t end = (c + 1) * CHUNK < n ? (c + 1) * CHUNK : n;
        for (int64_t k = c * CHUNK; k < end; k += VL)
            store(out + k, load(g + k, end - k) * (1.0f - exp_down(-load(y + k, end - k))), end - k);
    }
}

/* where the edges of a thread begin: all edges of one receiver go to one thread */
static int64_t cut(const int64_t *receiver, int64_t edges, int64_t thread, int64_t threads) {
    int64_t e = edges * thread / threads;
    while (e > 0 && e < edges && receiver[e] == receiver[e - 1]) e++;
    return e;
}

/* out[receiver] += logistic(a) * softplus(c), [a, c] = values[e] (+ of_receivers[receiver] + of_senders[sender], rows of 2 width);
   receivers never decrease, out comes as zeros */
void gated_sum_forward(
    const float *values, const float *of_receivers, const float *of_senders, const int64_t *receiver, const int64_t *sender, float *out,
    int64_t edges, int64_t width, int64_t threads
) {
#pragma omp parallel for num_threads((int)threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++)
        for (int64_t e = cut(receiver, edges, t, threads), end = cut(receiver, edges, t + 1, threads); e < end; e++) {
            const float *row = values + 2 * e * width, *r = of_receivers ? of_receivers + 2 * receiver[e] * width : 0;
            const float *s = of_senders ? of_senders + 2 * sender[e] * width : 0;
            float *to = out + receiver[e] * width;
            for (int64_t k = 0; k < width; k += VL) {
                int64_t left = width - k;
                vf a = load(row + k, left), c = load(row + width + k, left);
                if (r) {
                    a += load(r + k, left);
                    c += load(r + width + k, left);
                }
                if (s) {
                    a += load(s + k, left);
                    c += load(s + width + k, left);
                }
                store(to + k, load(to + k, left) + logistic(a) * softplus_of(c), left);
            }
        }
}

void gated_sum_backward(
    const float *values, const float *g, const int64_t *receiver, float *out, int64_t edges, int64_t width, int64_t threads
) {
#pragma omp parallel for num_threads((int)threads) if (threads > 1)
    for (int64_t e = 0; e < edges; e++) {
        const float *row = values + 2 * e * width, *up = g + receiver[e] * width;
        float *to = out + 2 * e * width;
        for (int64_t k = 0; k < width; k += VL) {
            int64_t left = width - k;
            vf soft, slope, open = logistic(load(row + k, left)), u = load(up + k, left) * open;
            both(load(row + width + k, left), &soft, &slope);
            store(to + k, u * soft * (1.0f - open), left);
            store(to + width + k, u * slope, left);
        }
    }
}
