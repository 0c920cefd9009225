// How the weights of a linear layer lie in memory, and what a product does with its sums.
#pragma once
#include "lanes.h"

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

}  // namespace
}  // namespace nerd
