// The network as all instruction sets share it: sizes, weights, scratch memory, and the table of functions that each
// instruction set fills in.
//
// path.cpp is compiled once per instruction set, and library.cpp chooses among the results when it is loaded. Code that
// path.cpp includes must not use templates or inline functions of the standard library: the linker keeps one copy of
// each for all of them, and that copy could have instructions that the processor lacks.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace nerd {

constexpr int MAX_LAYERS = 64;

// How the 256 integers of a token are divided: an integer stands for (integer - zero_point) * peak / positive.
struct Levels {
  int32_t zero_point, positive;
  float smallest_peak;
};

// Sizes of the network. The Python side has the same structure: nerd_onnx/native/library.py.
struct Shape {
  int32_t layers, hidden, heads, intermediate, labels;
  int32_t vocabulary, positions, token_types;
  int32_t embedding;              // width of the embeddings; where it is not ``hidden``, a linear layer follows them
  int32_t padding;                // positions count from behind this id, and it has its own; -1: they count from 0
  int32_t relative;               // whether the distance of two tokens changes their score
  float epsilon;                  // of the layer norms
  Levels symmetric, after_gelu;   // of the inputs of linear layers
};

// The longest segment: the tokens that have a position.
inline int longest(const Shape& shape) { return shape.positions - shape.padding - 1; }

// Rows that go through all layers together. Their activations stay in the second-level cache. The weights of a large
// network do not, and are read again for each group, so its groups are larger.
inline int group_rows(const Shape& shape) { return shape.hidden > 512 ? 128 : 64; }

// A linear layer in 8 bits, packed for one instruction set.
struct Linear {
  int inputs, outputs;
  int8_t* panels;          // weights, in the order in which the inner product reads them
  float *scale, *bias;     // one per output
  int32_t* offset;         // what the zero point adds to each sum of products
  int16_t* lane_offset;    // AVX2: the same for each 16-bit sum, modulo 2^16
  int32_t* largest_norm;   // AVX2: bound of the squares of a row, per group of inputs; see product.h
};

struct Norm {
  float *gain, *shift;
};

struct Layer {
  Linear projections, output, up, down;  // projections: queries, keys and values side by side
  Norm after_attention, after_feed_forward;
};

struct Network {
  Shape shape;
  const int8_t* words;  // in the mapped file, which the caller keeps open
  float *word_scale, *positions, *types;
  Norm embedding_norm;
  Linear projection;    // from embeddings to hidden states; empty where both have one width
  float* relative;      // (heads, distance_stride): what the distance adds to a score; null where nothing
  Layer layers[MAX_LAYERS];
  float *classifier, *classifier_bias;  // columns padded to a multiple of LANES
};

// Memory of one call. Each thread has its own.
struct Scratch {
  float *hidden, *wide, *narrow;         // (rows, hidden), (rows, widest layer), (rows, hidden)
  uint8_t* integers;                     // (rows, widest layer): quantized activations
  float* row_scale;                      // (rows,)
  int32_t* norms;                        // (rows, widest layer / 16): squares of the quantized activations
  uint8_t* narrow_sums;                  // (row tiles, widest layer / 16): whether 16 bits hold the sums
  float *keys, *scores;                  // (head, tokens), (row tile, tokens)
};

// Weights of a linear layer as the ONNX graph has them.
struct PlainLinear {
  int inputs, outputs;
  const int8_t* weight;        // (inputs, outputs)
  const float *scale, *bias;   // bias may be null
};

// The functions of one instruction set.
struct Path {
  const char* name;
  bool (*pack)(const PlainLinear* parts, int count, const Levels& levels, Linear& packed);
  void (*encode)(const Network& network, Scratch& scratch, const int64_t* ids, const int64_t* types, int sequences,
                 int tokens, float* logits);
  void (*gelu)(float* values, int count);         // for tests; count is a multiple of LANES
  void (*exponential)(float* values, int count);  // for tests
};

constexpr int LANES = 16;       // floats that are computed side by side, whatever the width of a register
constexpr int GROUP = 16;       // inputs whose products AVX2 adds in 16 bits
constexpr int MOST_TILE_ROWS = 32;
constexpr int SLACK = 64;         // bytes behind the activations that AMX may read

void* allocate(size_t bytes);   // 64-byte aligned, zeroed; null without memory
void release(void* memory);

inline int padded(int count, int multiple) { return (count + multiple - 1) / multiple * multiple; }

// Distances are from 1 - longest to longest - 1. Rows of 16 scores are read, so there is room behind the last.
inline int distances(const Shape& shape) { return 2 * longest(shape) - 1; }
inline int distance_stride(const Shape& shape) { return padded(distances(shape), LANES) + LANES; }

}  // namespace nerd
