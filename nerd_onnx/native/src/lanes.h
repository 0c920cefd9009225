// Floats, sixteen side by side, in the registers of one instruction set.
//
// Every operation is one IEEE operation per lane, so all instruction sets compute the same bits: no reciprocals, no
// reassociation, multiply-add only where fma() says so. Sums across lanes follow one fixed tree.
#pragma once
#include <math.h>
#include <string.h>

#include "network.h"

#if defined(NERD_AMX) || defined(NERD_AVX512VNNI)
#define NERD_AVX512
#endif

#if defined(NERD_AVX512) || defined(NERD_AVXVNNI) || defined(NERD_AVX2)
#ifdef NERD_EMULATED  // tests: AVX-512 and VNNI on processors without them
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#else
#include <immintrin.h>
#endif
#elif defined(NERD_NEON)
#include <arm_neon.h>
#endif

// Registers of the tile must stay registers: loops over them are unrolled, and the scheduler must not reorder the
// steps, because it then holds more values than there are registers.
#ifdef __clang__
#define NERD_UNROLL _Pragma("unroll")
#define NERD_KEEP_ORDER(x)
#else
#define NERD_UNROLL _Pragma("GCC unroll 16")
#ifdef NERD_EMULATED
#define NERD_KEEP_ORDER(x)
#else
#ifdef NERD_AVX512
#define NERD_KEEP_ORDER(x) asm volatile("" : "+v"(x))
#elif defined(NERD_NEON)
#define NERD_KEEP_ORDER(x) asm volatile("" : "+w"(x))
#else
#define NERD_KEEP_ORDER(x) asm volatile("" : "+x"(x))
#endif
#endif
#endif

namespace nerd {
namespace {

#if defined(NERD_AVX512)

constexpr int WIDTH = 16;
struct Floats { __m512 v; };
struct Integers { __m512i v; };

inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
inline Floats all(float x) { return {_mm512_set1_ps(x)}; }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats larger(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats smaller(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats magnitude(Floats a) { return {_mm512_abs_ps(a.v)}; }
inline Integers nearest(Floats a) { return {_mm512_cvtps_epi32(a.v)}; }
inline Floats floats(Integers a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Floats power_of_two(Integers n) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n.v, _mm512_set1_epi32(127)), 23))};
}
inline Floats load_bytes(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}
inline void store_bytes(uint8_t* p, const Integers* a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a->v)); }
inline float first(Floats a) { return _mm_cvtss_f32(_mm512_castps512_ps128(a.v)); }
template <int COUNT>
inline Floats moved_down(Floats a) {
  if constexpr (COUNT == 8) return {_mm512_shuffle_f32x4(a.v, a.v, 0x0e)};
  if constexpr (COUNT == 4) return {_mm512_shuffle_f32x4(a.v, a.v, 0x01)};
  return {_mm512_permute_ps(a.v, COUNT == 2 ? 0x0e : 0x01)};
}
inline Integers load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Integers operator+(Integers a, Integers b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Integers operator-(Integers a, Integers b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline Integers all(int32_t x) { return {_mm512_set1_epi32(x)}; }

#elif defined(NERD_AVX2) || defined(NERD_AVXVNNI)

constexpr int WIDTH = 8;
struct Floats { __m256 v; };
struct Integers { __m256i v; };

inline Floats load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Floats a) { _mm256_storeu_ps(p, a.v); }
inline Floats all(float x) { return {_mm256_set1_ps(x)}; }
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats larger(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats smaller(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Floats magnitude(Floats a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Integers nearest(Floats a) { return {_mm256_cvtps_epi32(a.v)}; }
inline Floats floats(Integers a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Floats power_of_two(Integers n) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.v, _mm256_set1_epi32(127)), 23))};
}
inline Floats load_bytes(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)))};
}
inline void store_bytes(uint8_t* p, const Integers* a) {
  __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a[0].v, a[1].v), 0xd8);  // packs works in halves
  __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128((__m128i*)p, bytes);
}
inline float first(Floats a) { return _mm256_cvtss_f32(a.v); }
template <int COUNT>
inline Floats moved_down(Floats a) {
  if constexpr (COUNT == 4) return {_mm256_permute2f128_ps(a.v, a.v, 0x01)};
  return {_mm256_permute_ps(a.v, COUNT == 2 ? 0x0e : 0x01)};
}
inline Integers load(const int32_t* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
inline Integers operator+(Integers a, Integers b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Integers operator-(Integers a, Integers b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline Integers all(int32_t x) { return {_mm256_set1_epi32(x)}; }

#elif defined(NERD_NEON)

constexpr int WIDTH = 4;
struct Floats { float32x4_t v; };
struct Integers { int32x4_t v; };

inline Floats load(const float* p) { return {vld1q_f32(p)}; }
inline void store(float* p, Floats a) { vst1q_f32(p, a.v); }
inline Floats all(float x) { return {vdupq_n_f32(x)}; }
inline Floats operator+(Floats a, Floats b) { return {vaddq_f32(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {vsubq_f32(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {vmulq_f32(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {vdivq_f32(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
// Not vmaxq and vminq: these treat NaN and -0 otherwise than x86 does.
inline Floats larger(Floats a, Floats b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline Floats smaller(Floats a, Floats b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline Floats magnitude(Floats a) { return {vabsq_f32(a.v)}; }
inline Integers nearest(Floats a) { return {vcvtnq_s32_f32(a.v)}; }
inline Floats floats(Integers a) { return {vcvtq_f32_s32(a.v)}; }
inline Floats power_of_two(Integers n) {
  return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.v, vdupq_n_s32(127)), 23))};
}
inline Floats load_bytes(const int8_t* p) {
  const int32_t wide[4] = {p[0], p[1], p[2], p[3]};
  return {vcvtq_f32_s32(vld1q_s32(wide))};
}
inline void store_bytes(uint8_t* p, const Integers* a) {
  int16x8_t low = vcombine_s16(vmovn_s32(a[0].v), vmovn_s32(a[1].v));
  int16x8_t high = vcombine_s16(vmovn_s32(a[2].v), vmovn_s32(a[3].v));
  vst1q_s8((int8_t*)p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));  // signed: see STORED_ZERO in product.h
}
inline float first(Floats a) { return vgetq_lane_f32(a.v, 0); }
template <int COUNT>
inline Floats moved_down(Floats a) {
  return {vextq_f32(a.v, a.v, COUNT)};
}
inline Integers load(const int32_t* p) { return {vld1q_s32(p)}; }
inline Integers operator+(Integers a, Integers b) { return {vaddq_s32(a.v, b.v)}; }
inline Integers operator-(Integers a, Integers b) { return {vsubq_s32(a.v, b.v)}; }
inline Integers all(int32_t x) { return {vdupq_n_s32(x)}; }

#else  // plain C++, which the others must equal

constexpr int WIDTH = 1;
struct Floats { float v; };
struct Integers { int32_t v; };

inline Floats load(const float* p) { return {*p}; }
inline void store(float* p, Floats a) { *p = a.v; }
inline Floats all(float x) { return {x}; }
inline Floats operator+(Floats a, Floats b) { return {a.v + b.v}; }
inline Floats operator-(Floats a, Floats b) { return {a.v - b.v}; }
inline Floats operator*(Floats a, Floats b) { return {a.v * b.v}; }
inline Floats operator/(Floats a, Floats b) { return {a.v / b.v}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {fmaf(a.v, b.v, c.v)}; }
inline Floats larger(Floats a, Floats b) { return {a.v > b.v ? a.v : b.v}; }
inline Floats smaller(Floats a, Floats b) { return {a.v < b.v ? a.v : b.v}; }
inline Floats magnitude(Floats a) { return {fabsf(a.v)}; }
inline Integers nearest(Floats a) { return {(int32_t)lrintf(a.v)}; }
inline Floats floats(Integers a) { return {(float)a.v}; }
inline Floats power_of_two(Integers n) {
  const uint32_t bits = (uint32_t)(n.v + 127) << 23;
  float result;
  memcpy(&result, &bits, sizeof result);
  return {result};
}
inline Floats load_bytes(const int8_t* p) { return {(float)*p}; }
inline void store_bytes(uint8_t* p, const Integers* a) {
  for (int i = 0; i < LANES; i++) p[i] = (uint8_t)a[i].v;
}
inline float first(Floats a) { return a.v; }
template <int COUNT>
inline Floats moved_down(Floats a) {
  return a;  // there is one lane
}
inline Integers load(const int32_t* p) { return {*p}; }
inline Integers operator+(Integers a, Integers b) { return {a.v + b.v}; }
inline Integers operator-(Integers a, Integers b) { return {a.v - b.v}; }
inline Integers all(int32_t x) { return {x}; }

#endif

// Sixteen floats in as many registers as that takes.
constexpr int PARTS = LANES / WIDTH;
struct Vector { Floats part[PARTS]; };

inline Vector load16(const float* p) {
  Vector a;
  for (int i = 0; i < PARTS; i++) a.part[i] = load(p + i * WIDTH);
  return a;
}
inline Vector load16(const int8_t* p) {
  Vector a;
  for (int i = 0; i < PARTS; i++) a.part[i] = load_bytes(p + i * WIDTH);
  return a;
}
inline void store16(float* p, const Vector& a) {
  for (int i = 0; i < PARTS; i++) store(p + i * WIDTH, a.part[i]);
}
inline Vector all16(float x) {
  Vector a;
  for (int i = 0; i < PARTS; i++) a.part[i] = all(x);
  return a;
}

#define NERD_LANEWISE(name)                                                 \
  inline Vector name(const Vector& a, const Vector& b) {                    \
    Vector c;                                                               \
    for (int i = 0; i < PARTS; i++) c.part[i] = name(a.part[i], b.part[i]); \
    return c;                                                               \
  }
NERD_LANEWISE(operator+)
NERD_LANEWISE(operator-)
NERD_LANEWISE(operator*)
NERD_LANEWISE(operator/)
NERD_LANEWISE(larger)
NERD_LANEWISE(smaller)
#undef NERD_LANEWISE

inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
  Vector d;
  for (int i = 0; i < PARTS; i++) d.part[i] = fma(a.part[i], b.part[i], c.part[i]);
  return d;
}
inline Vector magnitude(const Vector& a) {
  Vector b;
  for (int i = 0; i < PARTS; i++) b.part[i] = magnitude(a.part[i]);
  return b;
}

// All lanes joined by an operation: lane i with lane i + 8, then i with i + 4 of the result, and so on.
template <class Operation>
inline float folded(Vector a, Operation operation) {
  NERD_UNROLL for (int half = PARTS / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) a.part[i] = operation(a.part[i], a.part[i + half]);

  Floats lanes = a.part[0];
  if constexpr (WIDTH > 8) lanes = operation(lanes, moved_down<8>(lanes));
  if constexpr (WIDTH > 4) lanes = operation(lanes, moved_down<4>(lanes));
  if constexpr (WIDTH > 2) lanes = operation(lanes, moved_down<2>(lanes));
  if constexpr (WIDTH > 1) lanes = operation(lanes, moved_down<1>(lanes));
  return first(lanes);
}

inline float sum(const Vector& a) {
  return folded(a, [](Floats x, Floats y) { return x + y; });
}

// The largest lane. The order does not matter for numbers; for NaN it is fixed.
inline float largest(const Vector& a) {
  return folded(a, [](Floats x, Floats y) { return larger(x, y); });
}

// a / b, rounded as a division rounds it, without the time of one. ``minus_b`` is -b, and ``inverse`` is 1 / b, rounded.
//
// The remainder of a quotient is exact with fma. The first correction leaves an error below the last bit, and from there
// the second one rounds correctly (Markstein, Computation of elementary functions on the IBM RISC System/6000, 1990).
inline Floats quotient(Floats a, Floats minus_b, Floats inverse) {
  Floats q = a * inverse;
  q = fma(fma(minus_b, q, a), inverse, q);
  return fma(fma(minus_b, q, a), inverse, q);
}

}  // namespace
}  // namespace nerd
