// What the encoder needs of AVX-512 and AMX, and SIMDe does not have yet.
#pragma once
#include <string.h>

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

static inline simde__m512 nerd_shuffle_f32x4(simde__m512 a, simde__m512 b, int places) {
  simde__m512_private from[2] = {simde__m512_to_private(a), simde__m512_to_private(b)}, to;
  for (int i = 0; i < 4; i++) to.m128[i] = from[i / 2].m128[places >> 2 * i & 3];
  return simde__m512_from_private(to);
}
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4(a, b, places) nerd_shuffle_f32x4(a, b, places)

static inline simde__m512 nerd_permute_ps(simde__m512 a, int places) {
  simde__m512_private from = simde__m512_to_private(a), to;
  for (int i = 0; i < 16; i++) to.f32[i] = from.f32[i / 4 * 4 + (places >> 2 * (i % 4) & 3)];
  return simde__m512_from_private(to);
}
#undef _mm512_permute_ps
#define _mm512_permute_ps(a, places) nerd_permute_ps(a, places)

// The tile registers of AMX, with all rows and bytes in use.
static int8_t nerd_tiles[8][16][64];

static inline void nerd_tile_load(int tile, const void* from, size_t stride) {
  for (int row = 0; row < 16; row++) memcpy(nerd_tiles[tile][row], (const char*)from + row * stride, 64);
}
static inline void nerd_tile_store(int tile, void* to, size_t stride) {
  for (int row = 0; row < 16; row++) memcpy((char*)to + row * stride, nerd_tiles[tile][row], 64);
}
static inline void nerd_tile_multiply(int sums, int a, int b) {
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 16; column++) {
      int32_t sum;
      memcpy(&sum, &nerd_tiles[sums][row][4 * column], sizeof sum);
      for (int k = 0; k < 64; k++)
        sum += (uint8_t)nerd_tiles[a][row][k] * nerd_tiles[b][k / 4][4 * column + k % 4];
      memcpy(&nerd_tiles[sums][row][4 * column], &sum, sizeof sum);
    }
}
#define _tile_loadconfig(sizes) (void)(sizes)
#define _tile_release() (void)0
#define _tile_zero(tile) memset(nerd_tiles[tile], 0, sizeof nerd_tiles[tile])
#define _tile_loadd(tile, from, stride) nerd_tile_load(tile, from, stride)
#define _tile_stored(tile, to, stride) nerd_tile_store(tile, to, stride)
#define _tile_dpbusd(sums, a, b) nerd_tile_multiply(sums, a, b)
