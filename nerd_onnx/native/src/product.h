// The product of quantized activations with 8-bit weights, and how weights are packed for it.
//
// Sums of integers are exact, so each instruction set adds in its own order: that is the inner product, in a file each.
// Weights are packed in panels of PANEL outputs. A panel is read from beginning to end while TILE_ROWS rows of
// activations are multiplied with it.
#pragma once
#if defined(NERD_AMX)
#include "tile_amx.h"
#elif defined(NERD_AVX512VNNI) || defined(NERD_AVXVNNI) || defined(NERD_NEON)
#include "tile_dot.h"
#elif defined(NERD_AVX2)
#include "tile_avx2.h"
#else
#include "tile_plain.h"
#endif

namespace nerd {
namespace {

#ifndef NERD_AVX2  // sums have 32 bits: nothing can wrap around

inline void note_norms(const uint8_t*, int, int, int32_t*) {}
inline void find_fitting(const Linear&, const int32_t*, int, uint8_t*) {}
inline const int16_t* lanes_of(const Linear&, int) { return nullptr; }
inline bool pack_lanes(const PlainLinear&, int, int, Linear&) { return true; }

#endif

#ifndef NERD_AMX

// Multiplies with the function of an instruction set for up to TILE_ROWS rows.
class Tiles {
 public:
  Tiles(int inputs, int outputs) : inputs_(inputs), outputs_(outputs) {}

  void multiply(int count, const uint8_t* rows, const float* row_scale, const Panel& panel, const uint8_t* fits,
                uint8_t zero_point, float* out) const {
    multiply_rows<TILE_ROWS>(count, rows, row_scale, inputs_, panel, fits, zero_point, out, outputs_);
  }

 private:
  // Each number of rows has its own code, because its sums stay in registers.
  template <int ROWS, class... Arguments>
  static void multiply_rows(int count, Arguments... arguments) {
    if constexpr (ROWS > 0) {
      if (count == ROWS)
        tile<ROWS>(arguments...);
      else
        multiply_rows<ROWS - 1>(count, arguments...);
    }
  }

  const int inputs_, outputs_;
};

#endif

// out = activations @ weights + bias, for the quantized rows in the scratch. *Shape:* (rows, outputs).
inline void product(const Linear& layer, const Scratch& scratch, const Levels& levels, int rows, float* out) {
  const int groups = layer.inputs / GROUP;
  for (int m = 0; m < rows; m += TILE_ROWS) {
    const int count = rows - m < TILE_ROWS ? rows - m : TILE_ROWS;
    find_fitting(layer, scratch.norms + (size_t)m * groups, count, scratch.narrow_sums + (size_t)m / TILE_ROWS * groups);
  }

  Tiles tiles(layer.inputs, layer.outputs);
  for (int n = 0; n < layer.outputs; n += PANEL) {
    const Panel panel = {layer.panels + (size_t)n * padded(layer.inputs, DEPTH), layer.scale + n, layer.bias + n, layer.offset + n,
                         lanes_of(layer, n)};
    for (int m = 0; m < rows; m += TILE_ROWS) {
      const uint8_t* first = scratch.integers + (size_t)m * layer.inputs;
      const uint8_t* fits = scratch.narrow_sums + (size_t)m / TILE_ROWS * groups;
      tiles.multiply(rows - m < TILE_ROWS ? rows - m : TILE_ROWS, first, scratch.row_scale + m, panel, fits,
                     (uint8_t)levels.zero_point, out + (size_t)m * layer.outputs + n);
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
