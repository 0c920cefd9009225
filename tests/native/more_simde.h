// What the encoder needs of AVX-512 and SIMDe does not have yet, by halves.
#pragma once
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

static inline simde__m512i nerd_cvtps_epi32(simde__m512 a) {
  simde__m512_private from = simde__m512_to_private(a);
  simde__m512i_private to;
  for (int i = 0; i < 2; i++) to.m256i[i] = _mm256_cvtps_epi32(from.m256[i]);
  return simde__m512i_from_private(to);
}
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32(a) nerd_cvtps_epi32(a)

static inline simde__m512 nerd_cvtepi32_ps(simde__m512i a) {
  simde__m512i_private from = simde__m512i_to_private(a);
  simde__m512_private to;
  for (int i = 0; i < 2; i++) to.m256[i] = _mm256_cvtepi32_ps(from.m256i[i]);
  return simde__m512_from_private(to);
}
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(a) nerd_cvtepi32_ps(a)

static inline simde__m512i nerd_cvtepi8_epi32(__m128i a) {
  simde__m512i_private to;
  to.m256i[0] = _mm256_cvtepi8_epi32(a);
  to.m256i[1] = _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8));
  return simde__m512i_from_private(to);
}
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32(a) nerd_cvtepi8_epi32(a)

static inline __m128i nerd_cvtepi32_epi8(simde__m512i a) {
  simde__m512i_private from = simde__m512i_to_private(a);
  int8_t to[16];
  for (int i = 0; i < 16; i++) to[i] = (int8_t)from.i32[i];
  return _mm_loadu_si128((const __m128i*)to);
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8(a) nerd_cvtepi32_epi8(a)
