// The inner product in plain C++.
#pragma once
#include "panel.h"

namespace nerd {
namespace {

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

}  // namespace
}  // namespace nerd
