// The inner product with AMX, which multiplies whole tiles: 16 rows of 64 bytes in one register.
#pragma once
#include "panel.h"

namespace nerd {
namespace {

constexpr int BLOCK = 16;  // rows of a tile, and its 32-bit columns

struct alignas(64) TileSizes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, BLOCK};
};

// The tile registers belong to the object of this class: 0 to 3 are two by two blocks of sums, 4 and 5 activations, 6
// and 7 weights.
class Tiles {
 public:
  Tiles(int inputs, int outputs) : inputs_(inputs), outputs_(outputs) {
    const TileSizes sizes;
    _tile_loadconfig(&sizes);
  }
  ~Tiles() { _tile_release(); }

  // Multiply up to TILE_ROWS rows. Rows behind the last one are multiplied too, and dropped; so are bytes behind the last
  // input, with weights of zero.
  void multiply(int count, const uint8_t* rows, const float* row_scale, const Panel& panel, const uint8_t*, uint8_t,
                float* out) const {
    const int8_t* w = panel.weights;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < inputs_; k += DEPTH, w += DEPTH * PANEL) {
      _tile_loadd(4, rows + k, inputs_);
      _tile_loadd(6, w, STEP * PANEL);
      _tile_loadd(7, w + STEP * BLOCK, STEP * PANEL);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
      if (count > BLOCK) {
        _tile_loadd(5, rows + (size_t)BLOCK * inputs_ + k, inputs_);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
      }
    }

    constexpr int ROW_BYTES = PANEL * sizeof(int32_t);
    alignas(64) int32_t sums[TILE_ROWS * PANEL];
    _tile_stored(0, sums, ROW_BYTES);
    _tile_stored(1, sums + BLOCK, ROW_BYTES);
    if (count > BLOCK) {
      _tile_stored(2, sums + BLOCK * PANEL, ROW_BYTES);
      _tile_stored(3, sums + BLOCK * PANEL + BLOCK, ROW_BYTES);
    }
    store_rows(sums, count, row_scale, panel, out);
  }

 private:
  // Store the sums of a panel as floats.
  void store_rows(const int32_t* sums, int count, const float* row_scale, const Panel& panel, float* out) const {
    for (int column = 0; column < PANEL; column += WIDTH) {
      const Integers offset = load(panel.offset + column);
      for (int r = 0; r < count; r++) {
        const Integers exact = load(sums + r * PANEL + column) - offset;
        store(out + (size_t)r * outputs_ + column, output(exact, all(row_scale[r]), panel, column));
      }
    }
  }

  const int inputs_, outputs_;
};

}  // namespace
}  // namespace nerd
