// The inner product with AVX2, which has no instruction that adds products of bytes in 32 bits.
#pragma once
#include "panel.h"

namespace nerd {
namespace {

// AVX2 multiplies bytes with vpmaddubsw, which adds two neighbouring products in 16 bits. The exporter chooses weights
// with which that sum fits. vpmaddwd then widens it to 32 bits, which costs as much as the multiplication.
//
// So the sums of GROUP inputs, four per 16-bit lane with their neighbours, are added in 16 bits first, where they may
// wrap around. What must fit is the true sum, without the zero point, because arithmetic modulo 2^16 is exact:
// |sum q w| <= sqrt(sum q^2) sqrt(sum w^2) <= 32767 by the Cauchy-Schwarz inequality. The first factor is known when
// the activations are quantized, the second when the weights are packed. In 98 of 100 groups it holds; in the others
// each sum is widened.
constexpr int STEPS = GROUP / STEP;

inline __m256i broadcast(const uint8_t* four) {
  int32_t word;
  memcpy(&word, four, sizeof word);
  return _mm256_set1_epi32(word);
}
inline __m256i load_bytes32(const int8_t* p) { return _mm256_load_si256((const __m256i*)p); }
inline __m256i widened(__m256i words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }

template <int ROWS>
inline void tile(const uint8_t* rows, const float* row_scale, int inputs, const Panel& panel, const uint8_t* fits,
                 uint8_t zero_point, float* out, int stride) {
  const __m256i zero = _mm256_set1_epi8((char)zero_point);
  const int8_t* w = panel.weights;
  const int16_t* first = panel.lane_offset;
  __m256i total[ROWS][2];
  NERD_UNROLL for (int r = 0; r < ROWS; r++) total[r][0] = total[r][1] = _mm256_setzero_si256();

  for (int g = 0; g < inputs / GROUP; g++, rows += GROUP, w += GROUP * PANEL, first += 2 * PANEL) {
    if (__builtin_expect(fits[g], 1)) {
      __m256i words[ROWS][2];
      const __m256i first0 = load_bytes32((const int8_t*)first), first1 = load_bytes32((const int8_t*)(first + PANEL));
      NERD_UNROLL for (int r = 0; r < ROWS; r++) words[r][0] = first0, words[r][1] = first1;
      NERD_UNROLL for (int s = 0; s < STEPS; s++) {
        const __m256i w0 = load_bytes32(w + s * STEP * PANEL), w1 = load_bytes32(w + s * STEP * PANEL + 32);
        NERD_UNROLL for (int r = 0; r < ROWS; r++) {
          const __m256i a = broadcast(rows + (size_t)r * inputs + s * STEP);
          words[r][0] = _mm256_add_epi16(words[r][0], _mm256_maddubs_epi16(a, w0));
          words[r][1] = _mm256_add_epi16(words[r][1], _mm256_maddubs_epi16(a, w1));
          NERD_KEEP_ORDER(words[r][0]);
          NERD_KEEP_ORDER(words[r][1]);
        }
      }
      NERD_UNROLL for (int r = 0; r < ROWS; r++) {
        total[r][0] = _mm256_add_epi32(total[r][0], widened(words[r][0]));
        total[r][1] = _mm256_add_epi32(total[r][1], widened(words[r][1]));
      }
    } else {
      for (int s = 0; s < STEPS; s++) {
        const __m256i w0 = load_bytes32(w + s * STEP * PANEL), w1 = load_bytes32(w + s * STEP * PANEL + 32);
        const __m256i offset0 = widened(_mm256_maddubs_epi16(zero, w0)), offset1 = widened(_mm256_maddubs_epi16(zero, w1));
        NERD_UNROLL for (int r = 0; r < ROWS; r++) {
          const __m256i a = broadcast(rows + (size_t)r * inputs + s * STEP);
          const __m256i sum0 = widened(_mm256_maddubs_epi16(a, w0)), sum1 = widened(_mm256_maddubs_epi16(a, w1));
          total[r][0] = _mm256_add_epi32(total[r][0], _mm256_sub_epi32(sum0, offset0));
          total[r][1] = _mm256_add_epi32(total[r][1], _mm256_sub_epi32(sum1, offset1));
          NERD_KEEP_ORDER(total[r][0]);
          NERD_KEEP_ORDER(total[r][1]);
        }
      }
    }
  }

  NERD_UNROLL for (int r = 0; r < ROWS; r++)
    NERD_UNROLL for (int j = 0; j < 2; j++)
      store(out + (size_t)r * stride + 8 * j, output(Integers{total[r][j]}, all(row_scale[r]), panel, 8 * j));
}

// The larger sum of squares of the two lanes, for each group of a row.
inline void note_norms(const uint8_t* integers, int count, int zero_point, int32_t* norms) {
  const __m256i zero = _mm256_set1_epi16((int16_t)zero_point);
  for (int g = 0; g < count / GROUP; g++) {
    const __m128i bytes = _mm_loadu_si128((const __m128i*)(integers + g * GROUP));
    const __m256i q = _mm256_sub_epi16(_mm256_cvtepu8_epi16(bytes), zero);
    const __m256i squares = _mm256_madd_epi16(q, q);  // lanes alternate
    __m128i two = _mm_add_epi32(_mm256_castsi256_si128(squares), _mm256_extracti128_si256(squares, 1));
    two = _mm_add_epi32(two, _mm_shuffle_epi32(two, 0x4e));
    norms[g] = _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }
}

// Whether 16 bits hold the sums of each group of a tile of rows.
inline void find_fitting(const Linear& layer, const int32_t* norms, int rows, uint8_t* fits) {
  const int groups = layer.inputs / GROUP;
  for (int g = 0; g < groups; g++) {
    bool all_fit = true;
    for (int r = 0; r < rows; r++) all_fit &= norms[(size_t)r * groups + g] <= layer.largest_norm[g];
    fits[g] = all_fit;
  }
}

inline const int16_t* lanes_of(const Linear& layer, int column) {
  return layer.lane_offset + (size_t)column * (layer.inputs / GROUP) * 2;
}

// What the packed weights need beside themselves: first values of the 16-bit sums, and bounds of the squares.
inline bool pack_lanes(const PlainLinear& part, int place, int zero_point, Linear& packed) {
  const int groups = packed.inputs / GROUP;
  if (place == 0) {
    packed.lane_offset = (int16_t*)allocate((size_t)packed.outputs * groups * 2 * sizeof(int16_t));
    packed.largest_norm = (int32_t*)allocate(groups * sizeof(int32_t));
    if (!packed.lane_offset || !packed.largest_norm) return false;
    for (int g = 0; g < groups; g++) packed.largest_norm[g] = INT32_MAX;
  }

  for (int g = 0; g < groups; g++) {
    for (int n = 0; n < part.outputs; n++) {
      for (int half = 0; half < 2; half++) {
        int32_t sum = 0, squares = 0;
        for (int k = g * GROUP + 2 * half; k < (g + 1) * GROUP; k += STEP) {
          const int32_t a = part.weight[(size_t)k * part.outputs + n], b = part.weight[(size_t)(k + 1) * part.outputs + n];
          sum += a + b;
          squares += a * a + b * b;
        }
        const int column = place + n, panel = column / PANEL;
        const size_t at = (((size_t)panel * groups + g) * PANEL + column % PANEL) * 2 + half;
        packed.lane_offset[at] = (int16_t)(uint16_t)(uint32_t)(-zero_point * sum);
        const int32_t bound = squares ? 32767 * 32767 / squares : INT32_MAX;
        if (bound < packed.largest_norm[g]) packed.largest_norm[g] = bound;
      }
    }
  }
  return true;
}

}  // namespace
}  // namespace nerd
