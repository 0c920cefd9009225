// The inner product with AVX512-VNNI, AVX-VNNI and NEON: one instruction adds four products of bytes to a 32-bit sum.
#pragma once
#include "panel.h"

namespace nerd {
namespace {

#if defined(NERD_AVX512VNNI)

using Register = __m512i;
inline Register broadcast(int32_t word) { return _mm512_set1_epi32(word); }
inline Register weights_at(const int8_t* p) { return _mm512_loadu_si512(p); }
inline Register zeros() { return _mm512_setzero_si512(); }
inline Register multiply_add(Register sum, Register a, Register w) { return _mm512_dpbusd_epi32(sum, a, w); }
constexpr int REGISTERS = 2, BYTES = sizeof(Register);

#elif defined(NERD_AVXVNNI)

using Register = __m256i;
inline Register broadcast(int32_t word) { return _mm256_set1_epi32(word); }
inline Register weights_at(const int8_t* p) { return _mm256_load_si256((const __m256i*)p); }
inline Register zeros() { return _mm256_setzero_si256(); }
#ifdef NERD_EMULATED
inline Register multiply_add(Register sum, Register a, Register w) { return _mm256_dpbusd_epi32(sum, a, w); }
#else
inline Register multiply_add(Register sum, Register a, Register w) { return _mm256_dpbusd_avx_epi32(sum, a, w); }
#endif
constexpr int REGISTERS = 2, BYTES = sizeof(Register);

#else  // NEON

using Register = int32x4_t;
inline Register broadcast(int32_t word) { return vdupq_n_s32(word); }
inline int8x16_t weights_at(const int8_t* p) { return vld1q_s8(p); }
inline Register zeros() { return vdupq_n_s32(0); }
inline Register multiply_add(Register sum, Register a, int8x16_t w) {
  return vdotq_s32(sum, vreinterpretq_s8_s32(a), w);
}
constexpr int REGISTERS = 4, BYTES = sizeof(Register);

#endif

template <int ROWS>
inline void tile(const uint8_t* rows, const float* row_scale, int inputs, const Panel& panel, const uint8_t*, uint8_t,
                 float* out, int stride) {
  Register sum[ROWS][REGISTERS];
  NERD_UNROLL for (int r = 0; r < ROWS; r++) NERD_UNROLL for (int j = 0; j < REGISTERS; j++) sum[r][j] = zeros();

  const int8_t* w = panel.weights;
  for (int k = 0; k < inputs; k += STEP, w += STEP * PANEL) {
    NERD_UNROLL for (int r = 0; r < ROWS; r++) {
      int32_t word;
      memcpy(&word, rows + (size_t)r * inputs + k, sizeof word);
      const Register a = broadcast(word);
      NERD_UNROLL for (int j = 0; j < REGISTERS; j++) {
        sum[r][j] = multiply_add(sum[r][j], a, weights_at(w + j * BYTES));
        NERD_KEEP_ORDER(sum[r][j]);
      }
    }
  }

  NERD_UNROLL for (int r = 0; r < ROWS; r++) NERD_UNROLL for (int j = 0; j < REGISTERS; j++) {
    const int column = j * WIDTH;
    const Integers exact = Integers{sum[r][j]} - load(panel.offset + column);
    store(out + (size_t)r * stride + column, output(exact, all(row_scale[r]), panel, column));
  }
}

}  // namespace
}  // namespace nerd
