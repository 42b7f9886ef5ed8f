/* Vectors of floats as GCC and Clang know them, and what several sources here make of them. VB is their size in bytes.
   `compiled.py` puts this text where a source includes it. */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VB 64
#elif defined(__AVX__)
#define VB 32
#else
#define VB 16
#endif
#define VL (VB / 4)

typedef float vf __attribute__((vector_size(VB), aligned(4)));
typedef int32_t vi __attribute__((vector_size(VB), aligned(4)));
#define INLINE static inline __attribute__((always_inline))

INLINE vf all(float x) { return x - (vf){}; }
INLINE vf choose(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }

/* e^x for x <= 0, to two units in the last place; below -87 what e^-87 is */
INLINE vf exp_down(vf x) {
    x = choose(x < all(-87.0f), all(-87.0f), x);
    vf magic = all(12582912.0f), n = (x * 1.44269504088896341f + magic) - magic;
    vf r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vf p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (vf)((__builtin_convertvector(n, vi) + 127) << 23);
}

/* ln(1 + t) for t in [0, 1]: least deviation from ln(1 + t) / t at Chebyshev's points, relative error 3e-8 and the rounding of the sums */
INLINE vf log_one_and(vf t) {
    vf p = all(5.2534578e-3f);
    p = p * t - 2.95885074e-2f;
    p = p * t + 7.8361668e-2f;
    p = p * t - 1.36747697e-1f;
    p = p * t + 1.91114311e-1f;
    p = p * t - 2.48443699e-1f;
    p = p * t + 3.33192713e-1f;
    p = p * t - 4.99995015e-1f;
    p = p * t + 9.99999971e-1f;
    return p * t;
}

INLINE vf size(vf x) { return (vf)((vi)x & 0x7fffffff); }
INLINE vf positive(vf x) { return choose(x < all(0.0f), all(0.0f), x); }

INLINE vf softplus_of(vf x) { return positive(x) + log_one_and(exp_down(-size(x))); }
