// The functions that Python calls (nerd_onnx/native/library.py), and the choice of instructions.
//
// All that comes from outside is checked here, before the encoder runs: sizes, weights, ids. There is no state of the
// process: a network and a scratch belong to whoever opened them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

#if defined(__x86_64__) || defined(_M_X64)
#define NERD_X86
#include <cpuid.h>
#include <xmmintrin.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#ifdef _WIN32
#define NERD_PUBLIC extern "C" __declspec(dllexport)
#else
#define NERD_PUBLIC extern "C" __attribute__((visibility("default")))
#endif

namespace nerd {

extern const Path portable_path;
#ifdef NERD_X86
extern const Path avx2_path, avxvnni_path, avx512vnni_path, amx_path;
#elif defined(__aarch64__)
extern const Path neon_path;
#endif

// malloc has no alignment on Windows that free() takes back, so the address of the block stands before it.
void* allocate(size_t bytes) {
  const size_t alignment = 64;
  char* block = (char*)calloc(1, bytes + alignment + sizeof(void*));
  if (!block) return nullptr;
  const uintptr_t place = ((uintptr_t)block + sizeof(void*) + alignment - 1) / alignment * alignment;
  memcpy((char*)place - sizeof(void*), &block, sizeof block);
  return (void*)place;
}

void release(void* memory) {
  if (!memory) return;
  void* block;
  memcpy(&block, (char*)memory - sizeof(void*), sizeof block);
  free(block);
}

namespace {

constexpr int MOST_PATHS = 5;
constexpr int MOST_INPUTS = 1 << 15;  // sums of products of 8 bits then fit 32 bits

struct Tensor {
  const void* data;
  uint64_t bytes;
};

struct Opened {
  const Path* path;
  Network network;
};

#ifdef NERD_X86

bool has_bit(uint32_t word, int bit) { return word >> bit & 1; }

// Whether the system saves these registers: bits 1 and 2 for AVX, 5 to 7 for AVX-512, 17 and 18 for AMX.
bool system_saves(uint32_t bits) {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has_bit(c, 27)) return false;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & bits) == bits;
}

// Ask the system for the tile registers of AMX, which Linux gives to processes that ask.
bool may_use_tiles() {
#ifdef __linux__
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // of asm/prctl.h, which older systems lack
  return system_saves(0x60000) && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

#ifdef NERD_EMULATED  // tests: one path, compiled with the flag for it

int paths_here(const Path** found) {
#if defined(NERD_AMX)
  found[0] = &amx_path;
#elif defined(NERD_AVX512VNNI)
  found[0] = &avx512vnni_path;
#else
  found[0] = &avxvnni_path;
#endif
  return 1;
}

#else

// NERD_WITH_...: a compiler may be too old for an instruction set.
int paths_here(const Path** found) {
  uint32_t a, b, c, d, features = 0, extended = 0, words = 0, tiles = 0, late = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) features = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) extended = b, words = c, tiles = d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) late = a;

  const bool avx2 = has_bit(features, 12) && has_bit(extended, 5) && system_saves(0x6);  // with FMA
  const bool avx512 = avx2 && has_bit(extended, 16) && has_bit(extended, 17) && has_bit(extended, 30) &&
                      has_bit(extended, 31) && system_saves(0xe6);  // F, DQ, BW, VL
  const bool amx = avx512 && has_bit(tiles, 24) && has_bit(tiles, 25);

  int count = 0;
#ifdef NERD_WITH_AMX
  if (amx && may_use_tiles()) found[count++] = &amx_path;
#endif
#ifdef NERD_WITH_AVX512VNNI
  if (avx512 && has_bit(words, 11)) found[count++] = &avx512vnni_path;
#endif
#ifdef NERD_WITH_AVXVNNI
  if (avx2 && has_bit(late, 4)) found[count++] = &avxvnni_path;
#endif
  if (avx2) found[count++] = &avx2_path;
  found[count++] = &portable_path;
  return count;
}

#endif

// The rounding that the encoder needs: to nearest, with subnormal numbers. Other libraries change it for their threads.
class FloatControl {
 public:
  FloatControl() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~FloatControl() { _mm_setcsr(before_); }

 private:
  unsigned before_;
};

#elif defined(__aarch64__)

int paths_here(const Path** found) {
  int count = 0;
#if defined(__linux__)
  const bool dot_product = getauxval(AT_HWCAP) >> 20 & 1;  // HWCAP_ASIMDDP
#else
  const bool dot_product = true;  // each arm64 Mac has it
#endif
  if (dot_product) found[count++] = &neon_path;
  found[count++] = &portable_path;
  return count;
}

class FloatControl {
 public:
  FloatControl() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
  }
  ~FloatControl() { __asm__ volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
};

#else

int paths_here(const Path** found) {
  found[0] = &portable_path;
  return 1;
}

class FloatControl {};

#endif

const Path* path_named(const char* name) {
  const Path* found[MOST_PATHS];
  const int count = paths_here(found);
  if (!name[0]) return found[0];
  for (int i = 0; i < count; i++)
    if (!strcmp(found[i]->name, name)) return found[i];
  return nullptr;
}

bool in_range(int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; }

bool is_usable(const Levels& levels) {
  return in_range(levels.zero_point, 0, 255) && in_range(levels.positive, 1, 255) && levels.smallest_peak > 0.0f &&
         isfinite(levels.smallest_peak);
}

bool is_usable(const Shape& s) {
  return in_range(s.layers, 1, MAX_LAYERS) && in_range(s.hidden, 32, MOST_INPUTS / 4) && s.hidden % 32 == 0 &&
         in_range(s.intermediate, 32, MOST_INPUTS) && s.intermediate % 32 == 0 && in_range(s.heads, 1, s.hidden / LANES) &&
         s.hidden % s.heads == 0 && s.hidden / s.heads % LANES == 0 && in_range(s.labels, 1, MOST_INPUTS) &&
         in_range(s.vocabulary, 1, 1 << 24) && in_range(s.positions, 1, 1 << 16) && in_range(s.token_types, 1, 1 << 16) &&
         in_range(s.embedding, 32, MOST_INPUTS) && s.embedding % 32 == 0 && in_range(s.padding, -1, s.positions - 2) &&
         in_range(s.relative, 0, 1) &&
         s.epsilon >= 0.0f && isfinite(s.epsilon) && is_usable(s.symmetric) && is_usable(s.after_gelu);
}

int larger_of(int a, int b) { return a > b ? a : b; }

int widest(const Shape& s) {
  return larger_of(larger_of(3 * s.hidden, s.intermediate), larger_of(s.embedding, padded(s.labels, LANES)));
}

// No sum of two neighbouring products exceeds 16 bits; see export/nerd_export/quantization/rounding.py.
bool cannot_saturate(const PlainLinear& linear) {
  for (int k = 0; k < linear.inputs; k += 2) {
    const int8_t *first = linear.weight + (size_t)k * linear.outputs, *second = first + linear.outputs;
    for (int n = 0; n < linear.outputs; n++) {
      const int sum = first[n] + second[n];
      if (first[n] * second[n] > 0 && (sum > 128 || sum < -128)) return false;
      if (first[n] == -128 || second[n] == -128) return false;
    }
  }
  return true;
}

// Hands out the tensors in order, with a check of their sizes.
class Reader {
 public:
  Reader(const Tensor* tensors, int count) : next_(tensors), end_(tensors + count) {}

  const void* take(size_t bytes) {
    if (next_ == end_ || next_->bytes != bytes || !next_->data) return fail("a tensor is missing or has another size");
    return (next_++)->data;
  }

  // A copy, as floats in a file need not be aligned. Each row of it is padded with zeros to ``width`` columns.
  float* floats(int rows, int columns, int width = 0) {
    const char* from = (const char*)take((size_t)rows * columns * sizeof(float));
    if (!from) return nullptr;
    if (!width) width = columns;
    float* copy = (float*)allocate((size_t)rows * width * sizeof(float));
    if (!copy) return (float*)fail("there is no memory for the weights");
    for (int i = 0; i < rows; i++)
      memcpy(copy + (size_t)i * width, from + (size_t)i * columns * sizeof(float), columns * sizeof(float));
    return copy;
  }

  // A tensor of floats, or null where it was left out. Null also after an error.
  float* optional_floats(int count) {
    if (next_ != end_ && !next_->data) return next_++, nullptr;
    return floats(1, count);
  }

  void* fail(const char* message) {
    if (!error_) error_ = message;
    return nullptr;
  }
  bool is_complete() const { return next_ == end_; }
  const char* error() const { return error_; }

 private:
  const Tensor *next_, *end_;
  const char* error_ = nullptr;
};

void read_norm(Reader& reader, int hidden, Norm& norm) {
  norm.gain = reader.floats(1, hidden);
  norm.shift = reader.floats(1, hidden);
}

// Read layers that have one input, and pack them side by side.
void read_linear(Reader& reader, const Path& path, int inputs, int outputs, int count, const Levels& levels,
                 Linear& packed) {
  PlainLinear parts[3];
  float* scales[3] = {};
  float* biases[3] = {};
  for (int i = 0; i < count; i++) {
    const int8_t* weight = (const int8_t*)reader.take((size_t)inputs * outputs);
    scales[i] = reader.floats(1, outputs);
    biases[i] = reader.optional_floats(outputs);
    parts[i] = {inputs, outputs, weight, scales[i], biases[i]};
    if (!reader.error() && !cannot_saturate(parts[i])) reader.fail("weights can saturate");
  }

  if (!reader.error() && !path.pack(parts, count, levels, packed)) reader.fail("there is no memory for the weights");
  for (int i = 0; i < count; i++) release(scales[i]), release(biases[i]);
}

void read_network(Reader& reader, const Path& path, Network& n) {
  const Shape& s = n.shape;
  n.words = (const int8_t*)reader.take((size_t)s.vocabulary * s.embedding);
  n.word_scale = reader.floats(1, s.vocabulary);
  n.types = reader.floats(s.token_types, s.embedding);
  n.positions = reader.floats(s.positions, s.embedding);
  read_norm(reader, s.embedding, n.embedding_norm);
  if (s.embedding != s.hidden) read_linear(reader, path, s.embedding, s.hidden, 1, s.symmetric, n.projection);
  if (s.relative) n.relative = reader.floats(s.heads, distances(s), distance_stride(s));

  for (int i = 0; i < s.layers && !reader.error(); i++) {
    Layer& layer = n.layers[i];
    read_linear(reader, path, s.hidden, s.hidden, 3, s.symmetric, layer.projections);
    read_linear(reader, path, s.hidden, s.hidden, 1, s.symmetric, layer.output);
    read_norm(reader, s.hidden, layer.after_attention);
    read_linear(reader, path, s.hidden, s.intermediate, 1, s.symmetric, layer.up);
    read_linear(reader, path, s.intermediate, s.hidden, 1, s.after_gelu, layer.down);
    read_norm(reader, s.hidden, layer.after_feed_forward);
  }

  n.classifier = reader.floats(s.hidden, s.labels, padded(s.labels, LANES));
  n.classifier_bias = reader.floats(1, s.labels, padded(s.labels, LANES));
  if (!reader.error() && !reader.is_complete()) reader.fail("there are more tensors than the network has");
}

void close_linear(Linear& linear) {
  release(linear.panels);
  release(linear.scale);
  release(linear.bias);
  release(linear.offset);
  release(linear.lane_offset);
  release(linear.largest_norm);
}

void close_norm(Norm& norm) {
  release(norm.gain);
  release(norm.shift);
}

}  // namespace
}  // namespace nerd

using namespace nerd;

// Which sources this library was compiled from: Python refuses another library, whose structures may differ.
#ifndef NERD_SOURCES
#define NERD_SOURCES ""
#endif
NERD_PUBLIC const char* nerd_sources() { return NERD_SOURCES; }

// The names of the instruction sets that run here, fastest first, with commas.
NERD_PUBLIC void nerd_paths(char* names, int size) {
  const Path* found[MOST_PATHS];
  const int count = paths_here(found);
  names[0] = 0;
  for (int i = 0; i < count; i++) {
    if ((int)(strlen(names) + strlen(found[i]->name)) + 2 > size) return;
    if (i) strcat(names, ",");
    strcat(names, found[i]->name);
  }
}

NERD_PUBLIC void nerd_close(void* opened) {
  if (!opened) return;
  Network& n = ((Opened*)opened)->network;
  release(n.word_scale);
  release(n.positions);
  release(n.types);
  close_norm(n.embedding_norm);
  close_linear(n.projection);
  release(n.relative);
  for (Layer& layer : n.layers) {
    close_linear(layer.projections);
    close_linear(layer.output);
    close_linear(layer.up);
    close_linear(layer.down);
    close_norm(layer.after_attention);
    close_norm(layer.after_feed_forward);
  }
  release(n.classifier);
  release(n.classifier_bias);
  release(opened);
}

// Open a network. The word embeddings, the first tensor, must stay where they are until it is closed; all others are
// copied. Return null and an error where something does not fit.
NERD_PUBLIC void* nerd_open(const char* path_name, const Shape* shape, const Tensor* tensors, int count,
                            const char** error) {
  const Path* path = path_named(path_name);
  if (!path) return *error = "this processor has no such instructions", nullptr;
  if (!is_usable(*shape)) return *error = "the sizes are out of range", nullptr;

  Opened* opened = (Opened*)allocate(sizeof(Opened));
  if (!opened) return *error = "there is no memory for the weights", nullptr;
  opened->path = path;
  opened->network.shape = *shape;

  Reader reader(tensors, count);
  read_network(reader, *path, opened->network);
  if (!reader.error()) return opened;
  *error = reader.error();
  nerd_close(opened);
  return nullptr;
}

NERD_PUBLIC const char* nerd_path(const void* opened) { return ((const Opened*)opened)->path->name; }

NERD_PUBLIC void nerd_scratch_close(void* scratch) {
  if (!scratch) return;
  Scratch& s = *(Scratch*)scratch;
  release(s.hidden);
  release(s.wide);
  release(s.narrow);
  release(s.integers);
  release(s.row_scale);
  release(s.norms);
  release(s.narrow_sums);
  release(s.keys);
  release(s.scores);
  release(scratch);
}

// Memory for one call at a time, enough for segments of ``tokens``. Null without memory.
NERD_PUBLIC void* nerd_scratch_open(const void* opened, int tokens) {
  const Shape& shape = ((const Opened*)opened)->network.shape;
  if (!in_range(tokens, 1, longest(shape))) return nullptr;
  Scratch* s = (Scratch*)allocate(sizeof(Scratch));
  if (!s) return nullptr;

  const size_t rows = padded(larger_of(tokens, group_rows(shape)), MOST_TILE_ROWS), width = widest(shape);
  const size_t columns = padded(tokens, LANES);
  s->hidden = (float*)allocate(rows * shape.hidden * sizeof(float));
  s->wide = (float*)allocate(rows * width * sizeof(float));
  s->narrow = (float*)allocate(rows * shape.hidden * sizeof(float));
  s->integers = (uint8_t*)allocate(rows * width + SLACK);
  s->row_scale = (float*)allocate(rows * sizeof(float));
  s->norms = (int32_t*)allocate(rows * width / GROUP * sizeof(int32_t));
  s->narrow_sums = (uint8_t*)allocate(rows * width / GROUP);
  s->keys = (float*)allocate(shape.hidden / shape.heads * columns * sizeof(float));
  s->scores = (float*)allocate(MOST_TILE_ROWS * columns * sizeof(float));
  if (s->hidden && s->wide && s->narrow && s->integers && s->row_scale && s->norms && s->narrow_sums && s->keys &&
      s->scores)
    return s;
  nerd_scratch_close(s);
  return nullptr;
}

// Compute logits, (sequences, tokens, labels), of token ids and types, (sequences, tokens). ``tokens`` is at most that
// of the scratch. Return 0; 1 for an id or 2 for a type that is out of range, and then no logit is written.
NERD_PUBLIC int nerd_encode(const void* opened, void* scratch, const int64_t* ids, const int64_t* types, int sequences,
                            int tokens, float* logits) {
  const Opened& o = *(const Opened*)opened;
  const size_t count = (size_t)sequences * tokens;
  for (size_t i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= o.network.shape.vocabulary) return 1;
    if (types[i] < 0 || types[i] >= o.network.shape.token_types) return 2;
  }

  const FloatControl control;
  (void)control;
  o.path->encode(o.network, *(Scratch*)scratch, ids, types, sequences, tokens, logits);
  return 0;
}

// gelu (0) or exp (1) of values, in place, for tests; count is a multiple of 16. Return whether the path is here.
NERD_PUBLIC bool nerd_function(const char* path_name, int function, float* values, int count) {
  const Path* path = path_named(path_name);
  if (!path || count % LANES != 0) return false;
  const FloatControl control;
  (void)control;
  (function ? path->exponential : path->gelu)(values, count);
  return true;
}
