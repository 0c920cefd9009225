// The encoder for one instruction set. Compiled once for each, with NERD_AVX2 and the like defined, or none.
//
// A group of whole sequences, 64 or 128 tokens, goes through all layers before the next one begins. Its
// activations, some hundred KB, stay in the second-level cache, and no tensor of the whole batch is ever written.
#include "rows.h"

namespace nerd {
namespace {

constexpr int FLOAT_ROWS = WIDTH == 16 ? 8 : WIDTH == 1 ? 1 : 4;  // fills the registers; changes no bit

// Embeddings of the tokens of whole sequences, their norm, and the same quantized. *Shape:* (rows, embedding).
void embed(const Network& n, Scratch& s, const int64_t* ids, const int64_t* types, int rows, int tokens, float* out) {
  const int width = n.shape.embedding, padding = n.shape.padding;
  int last = padding;
  for (int m = 0; m < rows; m++) {
    if (m % tokens == 0) last = padding;
    const int place = ids[m] == padding ? padding : ++last;

    const Vector scale = all16(n.word_scale[ids[m]]);
    const int8_t* word = n.words + (size_t)ids[m] * width;
    const float* type = n.types + (size_t)types[m] * width;
    const float* position = n.positions + (size_t)place * width;
    float* row = out + (size_t)m * width;

    for (int i = 0; i < width; i += LANES)
      store16(row + i, load16(word + i) * scale + load16(type + i) + load16(position + i));
    normalize(row, width, n.embedding_norm, n.shape.epsilon);
    quantize_symmetric(row, width, n.shape.symmetric, m, s);
  }
}

// The hidden states that the first layer reads, and the same quantized.
void begin(const Network& n, Scratch& s, const int64_t* ids, const int64_t* types, int rows, int tokens) {
  const Shape& shape = n.shape;
  if (shape.embedding == shape.hidden) return embed(n, s, ids, types, rows, tokens, s.hidden);

  embed(n, s, ids, types, rows, tokens, s.wide);
  product(n.projection, s, shape.symmetric, rows, s.hidden);
  for (int m = 0; m < rows; m++)
    quantize_symmetric(s.hidden + (size_t)m * shape.hidden, shape.hidden, shape.symmetric, m, s);
}

// Attention of some queries of one head. ``bias``, which may be null, is what the distances of the keys from the first
// query add to its scores; for the next query all distances are smaller by one.
template <int ROWS>
void attend(const float* query, const float* keys, const float* value, int stride, int width, int tokens,
            const float* bias, float* scores, float* out, int out_stride) {
  const int columns = padded(tokens, LANES);
  float_rows<ROWS>(query, stride, keys, columns, width, columns, scores, columns);
  for (int r = 0; bias && r < ROWS; r++) add(scores + (size_t)r * columns, bias - r, columns);

  float sums[ROWS];
  for (int r = 0; r < ROWS; r++) sums[r] = softmax(scores + (size_t)r * columns, tokens);

  float_rows<ROWS>(scores, columns, value, stride, tokens, width, out, out_stride);
  for (int r = 0; r < ROWS; r++) {
    const Vector inverse = all16(1.0f / sums[r]);
    float* row = out + (size_t)r * out_stride;
    for (int i = 0; i < width; i += LANES) store16(row + i, load16(row + i) * inverse);
  }
}

// Attention of one sequence: from queries, keys and values side by side to one row of all heads per token.
void attention(const Network& n, Scratch& s, const float* projections, int tokens, float* out) {
  const int hidden = n.shape.hidden, stride = 3 * hidden, width = hidden / n.shape.heads;
  const int columns = padded(tokens, LANES);

  for (int head = 0; head < n.shape.heads; head++) {
    const float* query = projections + head * width;
    const float *key = query + hidden, *value = key + hidden;
    for (int d = 0; d < width; d++) {  // transposed, so that scores of neighbouring keys are computed side by side
      for (int j = 0; j < tokens; j++) s.keys[(size_t)d * columns + j] = key[(size_t)j * stride + d];
      for (int j = tokens; j < columns; j++) s.keys[(size_t)d * columns + j] = 0.0f;
    }

    int i = 0;
    float* target = out + head * width;
    const float* bias = n.relative ? n.relative + (size_t)head * distance_stride(n.shape) + longest(n.shape) - 1 : nullptr;
    for (; i + FLOAT_ROWS <= tokens; i += FLOAT_ROWS)
      attend<FLOAT_ROWS>(query + (size_t)i * stride, s.keys, value, stride, width, tokens, bias ? bias - i : nullptr,
                         s.scores, target + (size_t)i * hidden, hidden);
    for (; i < tokens; i++)
      attend<1>(query + (size_t)i * stride, s.keys, value, stride, width, tokens, bias ? bias - i : nullptr, s.scores,
                target + (size_t)i * hidden, hidden);
  }
}

// Add the result of a block to what it began with, normalize, and quantize for the next products.
void finish_block(const Network& n, Scratch& s, const Norm& norm, int rows) {
  const int hidden = n.shape.hidden;
  for (int m = 0; m < rows; m++) {
    float* row = s.hidden + (size_t)m * hidden;
    add(row, s.narrow + (size_t)m * hidden, hidden);
    normalize(row, hidden, norm, n.shape.epsilon);
    quantize_symmetric(row, hidden, n.shape.symmetric, m, s);
  }
}

void encoder_layer(const Network& n, Scratch& s, const Layer& layer, int sequences, int tokens) {
  const Shape& shape = n.shape;
  const int hidden = shape.hidden, rows = sequences * tokens;

  product(layer.projections, s, shape.symmetric, rows, s.wide);
  for (int i = 0; i < sequences; i++)
    attention(n, s, s.wide + (size_t)i * tokens * 3 * hidden, tokens, s.narrow + (size_t)i * tokens * hidden);
  for (int m = 0; m < rows; m++) quantize_symmetric(s.narrow + (size_t)m * hidden, hidden, shape.symmetric, m, s);
  product(layer.output, s, shape.symmetric, rows, s.narrow);
  finish_block(n, s, layer.after_attention, rows);

  product(layer.up, s, shape.symmetric, rows, s.wide);
  for (int m = 0; m < rows; m++)
    gelu_and_quantize(s.wide + (size_t)m * shape.intermediate, shape.intermediate, shape.after_gelu, m, s);
  product(layer.down, s, shape.after_gelu, rows, s.narrow);
  finish_block(n, s, layer.after_feed_forward, rows);
}

void classify(const Network& n, Scratch& s, int rows, float* logits) {
  const int hidden = n.shape.hidden, labels = n.shape.labels, columns = padded(labels, LANES);
  for (int m = 0; m < rows;) {
    const float* row = s.hidden + (size_t)m * hidden;
    const int count = rows - m < FLOAT_ROWS ? 1 : FLOAT_ROWS;
    if (count == FLOAT_ROWS)
      float_rows<FLOAT_ROWS>(row, hidden, n.classifier, columns, hidden, columns, s.wide, columns);
    else
      float_rows<1>(row, hidden, n.classifier, columns, hidden, columns, s.wide, columns);

    for (int r = 0; r < count; r++, m++)
      for (int i = 0; i < labels; i++)
        logits[(size_t)m * labels + i] = s.wide[(size_t)r * columns + i] + n.classifier_bias[i];
  }
}

void encode(const Network& n, Scratch& s, const int64_t* ids, const int64_t* types, int sequences, int tokens,
            float* logits) {
  const int group = group_rows(n.shape), at_once = group > tokens ? group / tokens : 1;
  for (int first = 0; first < sequences; first += at_once) {
    const int count = sequences - first < at_once ? sequences - first : at_once, rows = count * tokens;
    const size_t offset = (size_t)first * tokens;
    begin(n, s, ids + offset, types + offset, rows, tokens);
    for (int i = 0; i < n.shape.layers; i++) encoder_layer(n, s, n.layers[i], count, tokens);
    classify(n, s, rows, logits + offset * n.shape.labels);
  }
}

void gelu_of(float* values, int count) {
  for (int i = 0; i < count; i += LANES) store16(values + i, gelu(load16(values + i)));
}

void exponential_of(float* values, int count) {
  for (int i = 0; i < count; i += LANES) store16(values + i, exponential(load16(values + i)));
}

}  // namespace

#if defined(NERD_AMX)
extern const Path amx_path;
const Path amx_path = {"amx", pack, encode, gelu_of, exponential_of};
#elif defined(NERD_AVX512VNNI)
extern const Path avx512vnni_path;
const Path avx512vnni_path = {"avx512vnni", pack, encode, gelu_of, exponential_of};
#elif defined(NERD_AVXVNNI)
extern const Path avxvnni_path;
const Path avxvnni_path = {"avxvnni", pack, encode, gelu_of, exponential_of};
#elif defined(NERD_AVX2)
extern const Path avx2_path;
const Path avx2_path = {"avx2", pack, encode, gelu_of, exponential_of};
#elif defined(NERD_NEON)
extern const Path neon_path;
const Path neon_path = {"neon", pack, encode, gelu_of, exponential_of};
#else
extern const Path portable_path;
const Path portable_path = {"portable", pack, encode, gelu_of, exponential_of};
#endif

}  // namespace nerd
