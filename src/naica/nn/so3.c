/* Real harmonics of unit vectors, a row for each (so3.py), with their derivatives. The gradient of a solid harmonic is a sum of those one degree
   lower; its coefficients come as a list of entries: component `axis` of the gradient of harmonic `of` takes `factor` times harmonic `lower`. */
#ifndef REAL
#include <stdint.h>
#define MOST 121

typedef struct {
    int32_t axis, of, lower, unused;
    double factor;
} Entry;

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define REAL float
#define SUFFIX _f
#include __FILE__
#define REAL double
#define SUFFIX _d
#include __FILE__
#else

#define FN(name) CAT(name, SUFFIX)

void FN(harmonics)(int64_t count, int64_t most, const double *norm, const REAL *unit, REAL *out) {
    int64_t size = (most + 1) * (most + 1);
    REAL norms[MOST];
    for (int64_t k = 0; k < size; k++) norms[k] = (REAL)norm[k];
    for (int64_t e = 0; e < count; e++, unit += 3, out += size) {
        /* about the polar axis y: cosine and sine of m times the azimuth, times the sine of the polar angle to the power m */
        REAL x = unit[0], y = unit[1], z = unit[2], cosine = 1, sine = 0, along = 1;
        for (int64_t m = 0; m <= most; m++) {
            REAL before = 0, now = along;
            for (int64_t l = m; l <= most; l++) {
                if (l > m) {
                    REAL next = ((2 * l - 1) * y * now - (l + m - 1) * before) / (l - m);
                    before = now, now = next;
                }
                REAL value = norms[l * l + l + m] * now;
                out[l * l + l + m] = value * cosine;
                if (m) out[l * l + l - m] = value * sine;
            }
            REAL turned = z * cosine - x * sine;
            sine = z * sine + x * cosine, cosine = turned;
            along *= 2 * m + 1;
        }
    }
}

/* g_unit[a] = sum of factor g[of] y[lower] */
void FN(gradients)(int64_t count, int64_t most, const Entry *entry, int64_t entries, const REAL *y, const REAL *g, REAL *g_unit) {
    int64_t size = (most + 1) * (most + 1);
    for (int64_t e = 0; e < count; e++, y += size, g += size, g_unit += 3) {
        REAL sum[3] = {0, 0, 0};
        for (int64_t k = 0; k < entries; k++) sum[entry[k].axis] += (REAL)entry[k].factor * g[entry[k].of] * y[entry[k].lower];
        for (int a = 0; a < 3; a++) g_unit[a] = sum[a];
    }
}

/* derivatives of sum of change[a] g_unit[a] by g, and by the unit vector through y */
void FN(second)(int64_t count, int64_t most, const Entry *entry, int64_t entries, const REAL *y, const REAL *g, const REAL *change, REAL *g_g,
                REAL *g_unit) {
    int64_t size = (most + 1) * (most + 1);
    for (int64_t e = 0; e < count; e++, y += size, g += size, g_g += size, change += 3, g_unit += 3) {
        REAL g_y[MOST], sum[3] = {0, 0, 0};
        for (int64_t m = 0; m < size; m++) g_y[m] = g_g[m] = 0;
        for (int64_t k = 0; k < entries; k++) {
            REAL factor = (REAL)entry[k].factor * change[entry[k].axis];
            g_g[entry[k].of] += factor * y[entry[k].lower];
            g_y[entry[k].lower] += factor * g[entry[k].of];
        }
        for (int64_t k = 0; k < entries; k++) sum[entry[k].axis] += (REAL)entry[k].factor * g_y[entry[k].of] * y[entry[k].lower];
        for (int a = 0; a < 3; a++) g_unit[a] = sum[a];
    }
}

#undef FN
#undef REAL
#undef SUFFIX
#endif
