#ifndef PARE_FAKE_QUANTIZE_H
#define PARE_FAKE_QUANTIZE_H
#include <stddef.h>
#include <stdint.h>

/// Rounding to affine groups as training sees it: values stay float32, and the way back passes a
/// rounding as if it were the identity (Bengio et al. 2013, arXiv:1308.3432).
///
///     u = w / scale + zero + v        q = clamp(round(u), low, high)        y = (q - zero) scale
///
/// with low = -2^(bits-1), high = 2^(bits-1) - 1, rounding half to even. With v = 0 the codes are
/// those of quantize_groups.h.
struct pare_fake_quantization {
  size_t columns;
  /// Neighbouring columns that share a scale; a row's last group may be shorter.
  size_t group;
  int bits;
};

/// One row. v [columns] may be null; scales and zeros are the row's, one for each group.
void pare_fake_quantize_row(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, float *y);
void pare_fake_quantize_row_reference(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, float *y);

/// Gradients of one row from dy, with the roundings' remainders taken as constants:
///
///     where round(u) lies in low ... high:  dw = dy, dv = dy scale, d_scale += dy (q - zero - w / scale)
///     elsewhere:                            dw = dv = 0, d_scale += dy (q - zero), d_zero -= dy scale
///
/// dw and dv [columns] may be null; d_scale and d_zero hold one number for each group and are written.
/// The order of their sums depends on the instruction set only.
void pare_fake_quantize_row_gradient(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, const float *dy, float *dw, float *dv, float *d_scale, float *d_zero);
void pare_fake_quantize_row_gradient_reference(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, const float *dy, float *dw, float *dv, float *d_scale, float *d_zero);

/// Smallest and largest number of each group of a row, extended to include zero, and the first column
/// where each lies; -1 where it is that zero.
void pare_group_ranges_row(
    const float *w, size_t columns, size_t group, float *lows, float *highs, int32_t *low_columns,
    int32_t *high_columns);

/// x = clamp(x - rate sign(g), low, high), sign(0) = 0.
void pare_sign_step(
    const float *g, float rate, float low, float high, float *x, size_t count);

/// A row to the nearest of the integers -high ... high times one scale, the largest |x| over high.
/// Writes y, which may be x; returns the scale (1 for a row of zeros).
float pare_fake_quantize_token(const float *x, float high, float *y, size_t count);

#endif
