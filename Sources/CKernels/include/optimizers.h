#ifndef PARE_OPTIMIZERS_H
#define PARE_OPTIMIZERS_H
#include <stddef.h>
#include <stdint.h>

/// Updates of parameters in one pass over memory. Every array holds `count` float32 numbers, pointers
/// need no alignment, and an element's result depends on nothing but its own inputs, so that any cut
/// into pieces gives the same bits. Beside each kernel stands the same formula in plain C and double.
///
/// `gradient_factor` multiplies gradients as they are read: clipping by norm costs no pass of its own.

/// Loshchilov and Hutter 2019, arXiv:1711.05101, in the order of torch.optim.AdamW:
/// w = decay w;  m = m + beta1_rest (g - m);  v = beta2 v + beta2_rest g^2;
/// w = w - step_size m / (sqrt(v) / correction + epsilon)
struct pare_adamw_step {
  float decay;       ///< 1 - learning rate * weight decay
  float beta1_rest;  ///< 1 - beta1
  float beta2, beta2_rest;
  float step_size;   ///< learning rate / (1 - beta1^t)
  float correction;  ///< sqrt(1 - beta2^t)
  float epsilon;
  float gradient_factor;
};
void pare_adamw(
    const struct pare_adamw_step *s, const float *g, float *w, float *m, float *v, size_t count);
void pare_adamw_reference(
    const struct pare_adamw_step *s, const float *g, float *w, float *m, float *v, size_t count);

/// Momentum as torch.optim.SGD has it, decay added to the gradient:
/// g = g + decay w;  b = momentum b + arriving g;  w = w - rate (nesterov ? g + momentum b : b)
struct pare_sgd_step {
  float rate, decay, momentum;
  float arriving;  ///< 1 - dampening, and 1 at the first step
  int nesterov;
  float gradient_factor;
};
/// b may be null: then momentum is taken as 0.
void pare_sgd(const struct pare_sgd_step *s, const float *g, float *w, float *b, size_t count);
void pare_sgd_reference(const struct pare_sgd_step *s, const float *g, float *w, float *b, size_t count);

/// Chen et al. 2023, arXiv:2302.06675, algorithm 2, decay first as in AdamW:
/// w = decay w - rate sign(beta1 m + beta1_rest g);  m = beta2 m + beta2_rest g
struct pare_lion_step {
  float rate, decay, beta1, beta1_rest, beta2, beta2_rest;
  float gradient_factor;
};
void pare_lion(const struct pare_lion_step *s, const float *g, float *w, float *m, size_t count);
void pare_lion_reference(
    const struct pare_lion_step *s, const float *g, float *w, float *m, size_t count);

/// The momentum of Muon, and what is to be orthogonalized:
/// b = b + rest (g - b);  u = nesterov ? b - rest (b - g) : b
struct pare_muon_step {
  float rest;  ///< 1 - momentum
  int nesterov;
  float gradient_factor;
};
void pare_muon_momentum(
    const struct pare_muon_step *s, const float *g, float *b, float *u, size_t count);
void pare_muon_momentum_reference(
    const struct pare_muon_step *s, const float *g, float *b, float *u, size_t count);

/// y = decay y + a x
void pare_scaled_add(float decay, float a, const float *x, float *y, size_t count);
void pare_scaled_add_reference(float decay, float a, const float *x, float *y, size_t count);
/// average = average + rest (x - average)
void pare_average(float rest, const float *x, float *average, size_t count);
void pare_average_reference(float rest, const float *x, float *average, size_t count);

/// Sum of squares in double, in 16 interleaved sums whatever the instruction set: the same bits
/// everywhere. Not finite exactly when a number is not.
double pare_sum_of_squares(const float *x, size_t count);
double pare_sum_of_squares_reference(const float *x, size_t count);
/// y = x within -limit ... limit; NaN stays.
void pare_clamp(const float *x, float limit, float *y, size_t count);

/// Rounds to bfloat16 up or down, with the probability that makes the expected value x. Random bits
/// are a hash of `key` and the element's index, `first` for x[0]: no state, any order. NaN and
/// infinities stay.
void pare_f32_to_bf16_stochastic(
    const float *x, uint64_t key, uint64_t first, void *target, size_t count);
void pare_f32_to_bf16_stochastic_reference(
    const float *x, uint64_t key, uint64_t first, void *target, size_t count);

/// Dettmers et al. 2022, arXiv:2110.02861: blocks of 256 numbers, each divided by its largest
/// magnitude and replaced by the nearest number of a code book (section 2.1).
///
/// The book's numbers lie in seven decades below 1. Each decade's interval [0.1, 1] 10^-k is cut into
/// equal parts, and the middles of the parts are the numbers: with a sign 64 parts for k = 0 and half
/// as many for each next k, without one twice as many; 0 and 1 complete the 256.
enum { PARE_DYNAMIC_BLOCK = 256 };
/// The numbers of a book in rising order: a code is an index.
const float *pare_dynamic_book(int is_signed);
/// One scale for each block begun. `x` is a whole number of blocks but for the tensor's last.
/// In the unsigned book a number above zero never becomes zero: it may be a denominator.
void pare_dynamic_encode(
    int is_signed, const float *x, uint8_t *codes, float *scales, size_t count);
void pare_dynamic_encode_reference(
    int is_signed, const float *x, uint8_t *codes, float *scales, size_t count);
void pare_dynamic_decode(
    int is_signed, const uint8_t *codes, const float *scales, float *x, size_t count);

#endif
