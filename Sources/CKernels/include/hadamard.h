#ifndef PARE_HADAMARD_H
#define PARE_HADAMARD_H

#include <stddef.h>

/// Multiplies by Sylvester's Hadamard matrix of size n, a power of two, unnormalized and in place.
/// x is [n][width]: n neighbouring vectors of `width` floats, each column transformed by itself.
void pare_hadamard(float *x, size_t n, size_t width);

/// The same, one addition after the other.
void pare_hadamard_reference(float *x, size_t n, size_t width);

/// y[a] = scale * sum over b of core[a * m + b] * x[b], for vectors of `width` floats: x and y are
/// [m][width]. Sums run over b in order. `transposed` reads core[b * m + a].
void pare_hadamard_core(
    const float *core, size_t m, int transposed, const float *x, float scale, float *y,
    size_t width);

/// The same in double.
void pare_hadamard_core_reference(
    const float *core, size_t m, int transposed, const float *x, float scale, float *y,
    size_t width);

#endif
