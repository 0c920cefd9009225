// What happens to single rows between the products: quantization, layer norm, softmax.
#pragma once
#include "functions.h"
#include "product.h"

namespace nerd {
namespace {

// Round a row to 8 bits: integer = round(x / scale) + zero point, with scale = peak / positive levels. Row ``m`` of the
// scratch gets the integers and the scale.
inline void quantize(const float* row, int count, float peak, const Levels& levels, int m, Scratch& scratch) {
  const float scale = (peak > levels.smallest_peak ? peak : levels.smallest_peak) / (float)levels.positive;
  const Floats minus_scale = all(-scale), inverse = all(1.0f / scale);
  const Floats low = all((float)-levels.zero_point), high = all((float)(255 - levels.zero_point));
  const Integers zero_point = all((int32_t)(levels.zero_point - STORED_ZERO));
  uint8_t* integers = scratch.integers + (size_t)m * count;

  for (int i = 0; i < count; i += LANES) {
    Integers stored[PARTS];
    for (int j = 0; j < PARTS; j++)
      stored[j] = nearest(smaller(larger(quotient(load(row + i + j * WIDTH), minus_scale, inverse), low), high)) + zero_point;
    store_bytes(integers + i, stored);
  }

  scratch.row_scale[m] = scale;
  note_norms(integers, count, levels.zero_point, scratch.norms + (size_t)m * (count / GROUP));
}

// Quantize a row with as many levels below zero as above.
inline void quantize_symmetric(const float* row, int count, const Levels& levels, int m, Scratch& scratch) {
  Vector peak = all16(0.0f);
  for (int i = 0; i < count; i += LANES) peak = larger(peak, magnitude(load16(row + i)));
  quantize(row, count, largest(peak), levels, m, scratch);
}

// Replace a row by its gelu, and quantize that. Only values above zero decide the scale.
inline void gelu_and_quantize(float* row, int count, const Levels& levels, int m, Scratch& scratch) {
  Vector peak = all16(0.0f);
  for (int i = 0; i < count; i += LANES) {
    const Vector y = gelu(load16(row + i));
    store16(row + i, y);
    peak = larger(peak, y);
  }
  quantize(row, count, largest(peak), levels, m, scratch);
}

// Layer norm, in place.
inline void normalize(float* row, int count, const Norm& norm, float epsilon) {
  Vector total = all16(0.0f);
  for (int i = 0; i < count; i += LANES) total = total + load16(row + i);
  const Vector mean = all16(sum(total) / (float)count);

  total = all16(0.0f);
  for (int i = 0; i < count; i += LANES) {
    const Vector distance = load16(row + i) - mean;
    total = fma(distance, distance, total);
  }
  const Vector inverse = all16(1.0f / sqrtf(sum(total) / (float)count + epsilon));

  for (int i = 0; i < count; i += LANES)
    store16(row + i, fma((load16(row + i) - mean) * inverse, load16(norm.gain + i), load16(norm.shift + i)));
}

// Softmax without its division, in place: exp(x - largest x). Return the sum of the first ``count``.
//
// The row has room for a multiple of LANES. What is beyond ``count`` adds nothing to the sum: exp(-87) is far below the
// last bit of exp(0).
inline float softmax(float* row, int count) {
  const int end = padded(count, LANES);
  for (int j = count; j < end; j++) row[j] = -1e30f;

  Vector peak = load16(row);
  for (int j = LANES; j < end; j += LANES) peak = larger(peak, load16(row + j));
  peak = all16(largest(peak));

  Vector total = all16(0.0f);
  for (int j = 0; j < end; j += LANES) {
    const Vector weight = exponential(load16(row + j) - peak);
    store16(row + j, weight);
    total = total + weight;
  }
  return sum(total);
}

// Add a row to another, in place. Both have room for a multiple of LANES.
inline void add(float* row, const float* addend, int count) {
  for (int i = 0; i < count; i += LANES) store16(row + i, load16(row + i) + load16(addend + i));
}

// Rows of a small product of floats, c = a @ b. Each output is summed in order over the depth.
template <int ROWS>
inline void float_rows(const float* a, int a_stride, const float* b, int b_stride, int depth, int columns, float* c,
                       int c_stride) {
  for (int n = 0; n < columns; n += LANES) {
    Vector total[ROWS];
    NERD_UNROLL for (int r = 0; r < ROWS; r++) total[r] = all16(0.0f);
    for (int k = 0; k < depth; k++) {
      const Vector v = load16(b + (size_t)k * b_stride + n);
      NERD_UNROLL for (int r = 0; r < ROWS; r++) total[r] = fma(all16(a[(size_t)r * a_stride + k]), v, total[r]);
    }
    NERD_UNROLL for (int r = 0; r < ROWS; r++) store16(c + (size_t)r * c_stride + n, total[r]);
  }
}

}  // namespace
}  // namespace nerd
