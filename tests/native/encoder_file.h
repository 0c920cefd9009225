// An encoder of tests/support/encoders.py with its input, as RandomEncoder.to_file writes it: the sizes, the tensors,
// each with its number of bytes before it, and sequences, tokens, ids and types.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

struct Tensor {
  const void* data;
  uint64_t bytes;
};

extern "C" {
void* nerd_open(const char* path, const nerd::Shape* shape, const Tensor* tensors, int count, const char** error);
void nerd_close(void* opened);
void* nerd_scratch_open(const void* opened, int tokens);
void nerd_scratch_close(void* scratch);
int nerd_encode(const void* opened, void* scratch, const int64_t* ids, const int64_t* types, int sequences, int tokens,
                float* logits);
}

struct EncoderFile {
  const nerd::Shape* shape;
  Tensor* tensors;
  int count, sequences, tokens;
  const int64_t *ids, *types;

  size_t logits() const { return (size_t)sequences * tokens * shape->labels; }
};

inline void* read_block(FILE* file, uint64_t* bytes) {
  if (fread(bytes, sizeof *bytes, 1, file) != 1) return nullptr;
  void* block = malloc(*bytes + 1);
  return fread(block, 1, *bytes, file) == *bytes ? block : nullptr;
}

// Read a file. Return whether it has all parts.
inline bool read_encoder(const char* name, EncoderFile& read) {
  FILE* file = fopen(name, "rb");
  if (!file) return false;

  uint64_t bytes, size;
  read.shape = (nerd::Shape*)read_block(file, &bytes);
  const int32_t* numbers = (int32_t*)read_block(file, &size);  // tensors, sequences, tokens
  if (!read.shape || bytes != sizeof *read.shape || !numbers) return false;
  read.count = numbers[0], read.sequences = numbers[1], read.tokens = numbers[2];

  read.tensors = (Tensor*)calloc(read.count, sizeof(Tensor));
  for (int i = 0; i < read.count; i++) {
    read.tensors[i].data = read_block(file, &read.tensors[i].bytes);
    if (!read.tensors[i].bytes) read.tensors[i].data = nullptr;
  }
  read.ids = (int64_t*)read_block(file, &bytes);
  read.types = (int64_t*)read_block(file, &bytes);
  return !fclose(file) && read.ids && read.types;
}
