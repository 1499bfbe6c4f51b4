#ifndef PARE_GRADIENTS_H
#define PARE_GRADIENTS_H
#include <stddef.h>

#include "rows.h"

/// Backward rules of the operations in rows.h: dy is the gradient of a result, dx that of its input.
/// Unless said otherwise a function writes; one whose name ends in _add adds to what is there.

/// dx = dy * f'(x)
void pare_activate_gradient(
    enum pare_activation kind, const float *x, const float *dy, float *dx, size_t count);
/// y = f(gate) * up: d_gate = dy * up * f'(gate), d_up = dy * f(gate).
void pare_gated_gradient(
    enum pare_activation kind, const float *gate, const float *up, const float *dy, float *d_gate,
    float *d_up, size_t count);
/// y = cap * tanh(x / cap), given y: dx = dy * (1 - (y / cap)^2).
void pare_soft_cap_gradient(const float *y, float cap, const float *dy, float *dx, size_t count);

/// One row of pare_rms_norm. dx is written; dw [count] is added to, or null.
void pare_rms_norm_gradient(
    const float *x, const float *w, float offset, float epsilon, const float *dy, float *dx,
    float *dw, size_t count);
/// One row of pare_layer_norm. dx is written; dw and db are added to, or null.
void pare_layer_norm_gradient(
    const float *x, const float *w, float epsilon, const float *dy, float *dx, float *dw, float *db,
    size_t count);

/// Rotates one head's pairs (i, i + half) by angles whose cosines and sines are given; `direction`
/// is 1 for the rotation, -1 for its transpose. Dimensions from 2 * half on are copied.
void pare_rotate(
    const float *x, const float *cosines, const float *sines, float direction, size_t half,
    size_t dim, float *y);

/// What the backward pass of attention does with a tile of scores besides its products (Dao et al.
/// 2022, arXiv:2205.14135, algorithm 4).
struct pare_score_gradient {
  float *scores;          ///< [rows, stride] in: scaled products; out: probabilities
  float *gradient;        ///< [rows, stride] in: dP = dO · V; out: d of the scaled products
  size_t rows, columns, stride;
  size_t first_query;     ///< position of row 0
  size_t first_key;       ///< position of column 0
  size_t window;          ///< as in pare_score_tile
  float soft_cap;         ///< as in pare_score_tile
  float slope;            ///< as in pare_score_tile
  const float *log_sum;   ///< [rows]: log of the softmax's denominator, maximum included
  const float *mean;      ///< [rows]: dO · O, the mean of dP under the probabilities
};
void pare_softmax_gradient(const struct pare_score_gradient *tile);

/// The same rules in double, one number after another.
void pare_activate_gradient_ref(
    enum pare_activation kind, const float *x, const float *dy, float *dx, size_t count);
void pare_gated_gradient_ref(
    enum pare_activation kind, const float *gate, const float *up, const float *dy, float *d_gate,
    float *d_up, size_t count);
void pare_soft_cap_gradient_ref(
    const float *y, float cap, const float *dy, float *dx, size_t count);
void pare_rms_norm_gradient_ref(
    const float *x, const float *w, float offset, float epsilon, const float *dy, float *dx,
    float *dw, size_t count);
void pare_layer_norm_gradient_ref(
    const float *x, const float *w, float epsilon, const float *dy, float *dx, float *dw, float *db,
    size_t count);
void pare_rotate_ref(
    const float *x, const float *cosines, const float *sines, float direction, size_t half,
    size_t dim, float *y);
void pare_softmax_gradient_ref(const struct pare_score_gradient *tile);

#endif
