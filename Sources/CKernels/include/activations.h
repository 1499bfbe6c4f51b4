#ifndef PARE_ACTIVATIONS_H
#define PARE_ACTIVATIONS_H
#include <stddef.h>

/// Activations rounded to integer grids and back. Pointers need no alignment.

/// Smallest and largest of `count` values and 0.
void pare_range_with_zero(const float *x, size_t count, float *lowest, float *highest);
void pare_range_with_zero_ref(const float *x, size_t count, float *lowest, float *highest);

/// y = (roundHalfEven(clamp(x / scale + zero, low, high)) - zero) * scale, for bounds and zeros of at
/// most 2^20 and with NaN kept. x and y may be the same.
void pare_round_to_grid(
    const float *x, size_t count, float scale, float zero, float low, float high, float *y);
void pare_round_to_grid_ref(
    const float *x, size_t count, float scale, float zero, float low, float high, float *y);

/// y = dy where x is inside the grid's range, else 0: the straight-through gradient.
void pare_grid_gradient(
    const float *x, const float *dy, size_t count, float scale, float zero, float low, float high,
    float *y);

#endif
