// The product of quantized activations with 8-bit weights: how weights are packed, and the inner product.
//
// Sums of integers are exact, so each instruction set may add in its own order. Weights are packed in panels of PANEL
// outputs; a panel is read from beginning to end while TILE_ROWS rows of activations are multiplied with it.
#pragma once
#include "lanes.h"

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

// PANEL outputs and TILE_ROWS rows are multiplied at once, STEP inputs by one instruction. Panels are padded with zeros
// to a multiple of DEPTH inputs.
#if defined(NERD_AMX)
constexpr int PANEL = 32, STEP = 4, DEPTH = 64, TILE_ROWS = 32, STORED_ZERO = 0;
#elif defined(NERD_AVX512VNNI)
constexpr int PANEL = 32, STEP = 4, DEPTH = 4, TILE_ROWS = 12, STORED_ZERO = 0;
#elif defined(NERD_AVXVNNI)
constexpr int PANEL = 16, STEP = 4, DEPTH = 4, TILE_ROWS = 6, STORED_ZERO = 0;
#elif defined(NERD_AVX2)
constexpr int PANEL = 16, STEP = 4, DEPTH = 4, TILE_ROWS = 4, STORED_ZERO = 0;
#elif defined(NERD_NEON)
constexpr int PANEL = 16, STEP = 4, DEPTH = 4, TILE_ROWS = 4, STORED_ZERO = 128;  // vdotq_s32 takes signed activations
#else
constexpr int PANEL = 16, STEP = 1, DEPTH = 1, TILE_ROWS = 1, STORED_ZERO = 0;
#endif

// A panel of a linear layer.
struct Panel {
  const int8_t* weights;
  const float *scale, *bias;
  const int32_t* offset;
  const int16_t* lane_offset;
};

// The output of one row: the same three roundings as in the ONNX graph.
inline Floats output(Integers sum, Floats row_scale, const Panel& panel, int column) {
  return floats(sum) * load(panel.scale + column) * row_scale + load(panel.bias + column);
}

#if defined(NERD_AVX2)

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

#else  // 32-bit sums: nothing can wrap around

inline void note_norms(const uint8_t*, int, int, int32_t*) {}
inline void find_fitting(const Linear&, const int32_t*, int, uint8_t*) {}
inline const int16_t* lanes_of(const Linear&, int) { return nullptr; }
inline bool pack_lanes(const PlainLinear&, int, int, Linear&) { return true; }

#if defined(NERD_AVX512VNNI) || defined(NERD_AVXVNNI)

#if defined(NERD_AVX512VNNI)
using Register = __m512i;
inline Register broadcast(int32_t word) { return _mm512_set1_epi32(word); }
inline Register weights_at(const int8_t* p) { return _mm512_loadu_si512(p); }
inline Register zeros() { return _mm512_setzero_si512(); }
inline Register multiply_add(Register sum, Register a, Register w) { return _mm512_dpbusd_epi32(sum, a, w); }
#else
using Register = __m256i;
inline Register broadcast(int32_t word) { return _mm256_set1_epi32(word); }
inline Register weights_at(const int8_t* p) { return _mm256_load_si256((const __m256i*)p); }
inline Register zeros() { return _mm256_setzero_si256(); }
#ifdef NERD_EMULATED
inline Register multiply_add(Register sum, Register a, Register w) { return _mm256_dpbusd_epi32(sum, a, w); }
#else
inline Register multiply_add(Register sum, Register a, Register w) { return _mm256_dpbusd_avx_epi32(sum, a, w); }
#endif
#endif

constexpr int REGISTERS = 2, BYTES = sizeof(Register);

#elif defined(NERD_NEON)

using Register = int32x4_t;
inline Register broadcast(int32_t word) { return vdupq_n_s32(word); }
inline int8x16_t weights_at(const int8_t* p) { return vld1q_s8(p); }
inline Register zeros() { return vdupq_n_s32(0); }
inline Register multiply_add(Register sum, Register a, int8x16_t w) {
  return vdotq_s32(sum, vreinterpretq_s8_s32(a), w);
}
constexpr int REGISTERS = 4, BYTES = sizeof(Register);

#endif

#if defined(NERD_AVX512VNNI) || defined(NERD_AVXVNNI) || defined(NERD_NEON)

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

#elif !defined(NERD_AMX)  // plain C++

template <int ROWS>
inline void tile(const uint8_t* rows, const float* row_scale, int inputs, const Panel& panel, const uint8_t*, uint8_t,
                 float* out, int stride) {
  for (int r = 0; r < ROWS; r++) {
    int32_t sum[PANEL] = {0};
    for (int k = 0; k < inputs; k++)
      for (int n = 0; n < PANEL; n++) sum[n] += rows[(size_t)r * inputs + k] * panel.weights[k * PANEL + n];

    for (int n = 0; n < PANEL; n++) {
      const Integers exact = Integers{sum[n] - panel.offset[n]};
      store(out + (size_t)r * stride + n, output(exact, all(row_scale[r]), panel, n));
    }
  }
}

#endif
#endif

#if defined(NERD_AMX)

// AMX multiplies in tile registers of 16 rows of 64 bytes: 0 to 3 are 2 by 2 blocks of sums, 4 and 5 activations of 16
// rows each, 6 and 7 weights of 16 outputs each. The activations of rows behind the last one are multiplied too, and
// dropped; so are those behind the last input, with weights that are zero.
constexpr int BLOCK = 16;

struct alignas(64) TileSizes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The tile registers belong to whoever has one of these.
class TileRegisters {
 public:
  TileRegisters() {
    const TileSizes sizes;
    _tile_loadconfig(&sizes);
  }
  ~TileRegisters() { _tile_release(); }
};

// The sums of one block of rows and outputs, as floats.
inline void store_block(const int32_t* sums, const float* row_scale, int count, const Panel& panel, int column,
                        float* out, int stride) {
  const Integers offset = load(panel.offset + column);
  for (int r = 0; r < count; r++) {
    const Integers exact = load(sums + r * BLOCK) - offset;
    store(out + (size_t)r * stride + column, output(exact, all(row_scale[r]), panel, column));
  }
}

inline void multiply(int count, const uint8_t* rows, const float* row_scale, int inputs, const Panel& panel,
                     const uint8_t*, uint8_t, float* out, int stride) {
  const bool second = count > BLOCK;
  const int8_t* w = panel.weights;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int k = 0; k < inputs; k += DEPTH, w += DEPTH * PANEL) {
    _tile_loadd(4, rows + k, inputs);
    _tile_loadd(6, w, STEP * PANEL);
    _tile_loadd(7, w + STEP * BLOCK, STEP * PANEL);
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    if (!second) continue;
    _tile_loadd(5, rows + (size_t)BLOCK * inputs + k, inputs);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }

  alignas(64) int32_t sums[4][BLOCK * BLOCK];
  _tile_stored(0, sums[0], BLOCK * sizeof(int32_t));
  _tile_stored(1, sums[1], BLOCK * sizeof(int32_t));
  for (int j = 0; j < 2; j++)
    store_block(sums[j], row_scale, second ? BLOCK : count, panel, j * BLOCK, out, stride);
  if (!second) return;

  _tile_stored(2, sums[2], BLOCK * sizeof(int32_t));
  _tile_stored(3, sums[3], BLOCK * sizeof(int32_t));
  for (int j = 0; j < 2; j++)
    store_block(sums[2 + j], row_scale + BLOCK, count - BLOCK, panel, j * BLOCK, out + (size_t)BLOCK * stride, stride);
}

#else

struct TileRegisters {
  TileRegisters() {}
};

// Multiply up to ROWS rows. Each number of rows has its own code, because its sums stay in registers.
template <int ROWS = TILE_ROWS, class... Arguments>
inline void multiply(int count, Arguments... arguments) {
  if constexpr (ROWS > 0) {
    if (count == ROWS)
      tile<ROWS>(arguments...);
    else
      multiply<ROWS - 1>(count, arguments...);
  }
}

#endif

// out = activations @ weights + bias, for the quantized rows in the scratch. *Shape:* (rows, outputs).
inline void product(const Linear& layer, const Scratch& scratch, const Levels& levels, int rows, float* out) {
  const int groups = layer.inputs / GROUP;
  for (int m = 0; m < rows; m += TILE_ROWS) {
    const int count = rows - m < TILE_ROWS ? rows - m : TILE_ROWS;
    find_fitting(layer, scratch.norms + (size_t)m * groups, count, scratch.narrow_sums + (size_t)m / TILE_ROWS * groups);
  }

  const TileRegisters registers;
  for (int n = 0; n < layer.outputs; n += PANEL) {
    const Panel panel = {layer.panels + (size_t)n * padded(layer.inputs, DEPTH), layer.scale + n, layer.bias + n, layer.offset + n,
                         lanes_of(layer, n)};
    for (int m = 0; m < rows; m += TILE_ROWS) {
      const uint8_t* first = scratch.integers + (size_t)m * layer.inputs;
      const uint8_t* fits = scratch.narrow_sums + (size_t)m / TILE_ROWS * groups;
      float* target = out + (size_t)m * layer.outputs + n;
      multiply(rows - m < TILE_ROWS ? rows - m : TILE_ROWS, first, scratch.row_scale + m, layer.inputs, panel, fits,
               (uint8_t)levels.zero_point, target, layer.outputs);
    }
  }
}

// Pack layers that read one activation as one layer, side by side. Return false without memory.
inline bool pack(const PlainLinear* parts, int count, const Levels& levels, Linear& packed) {
  const int inputs = parts[0].inputs, depth = padded(inputs, DEPTH);
  int outputs = 0;
  for (int i = 0; i < count; i++) outputs += parts[i].outputs;
  packed.inputs = inputs;
  packed.outputs = outputs;

  packed.panels = (int8_t*)allocate((size_t)depth * outputs);
  packed.scale = (float*)allocate(outputs * sizeof(float));
  packed.bias = (float*)allocate(outputs * sizeof(float));
  packed.offset = (int32_t*)allocate(outputs * sizeof(int32_t));
  if (!packed.panels || !packed.scale || !packed.bias || !packed.offset) return false;

  int place = 0;
  for (int i = 0; i < count; i++) {
    const PlainLinear& part = parts[i];
    for (int n = 0; n < part.outputs; n++) {
      const int column = place + n;
      int8_t* panel = packed.panels + (size_t)(column / PANEL) * PANEL * depth;
      int32_t sum = 0;
      for (int k = 0; k < inputs; k++) {
        const int8_t weight = part.weight[(size_t)k * part.outputs + n];
        panel[(size_t)(k / STEP) * STEP * PANEL + (column % PANEL) * STEP + k % STEP] = weight;
        sum += weight;
      }
      packed.scale[column] = part.scale[n];
      packed.bias[column] = part.bias ? part.bias[n] : 0.0f;
      packed.offset[column] = (levels.zero_point - STORED_ZERO) * sum;
    }
    if (!pack_lanes(part, place, levels.zero_point, packed)) return false;
    place += part.outputs;
  }
  return true;
}

}  // namespace
}  // namespace nerd
