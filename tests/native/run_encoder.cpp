// Runs an encoder of tests/support/encoders.py with one instruction set, on a processor that is emulated.
//
// Usage: run_encoder PATH INPUT OUTPUT. INPUT has the sizes, the tensors, each with its number of bytes before it, and
// sequences, tokens, ids and types. OUTPUT gets the logits.
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
void* nerd_scratch_open(const void* opened, int tokens);
int nerd_encode(const void* opened, void* scratch, const int64_t* ids, const int64_t* types, int sequences, int tokens,
                float* logits);
}

static void* read_block(FILE* file, uint64_t* bytes) {
  if (fread(bytes, sizeof *bytes, 1, file) != 1) return nullptr;
  void* block = malloc(*bytes + 1);
  return fread(block, 1, *bytes, file) == *bytes ? block : nullptr;
}

int main(int count, char** arguments) {
  if (count != 4) return 2;
  FILE* input = fopen(arguments[2], "rb");
  FILE* output = fopen(arguments[3], "wb");
  if (!input || !output) return 2;

  uint64_t bytes, size;
  const nerd::Shape* shape = (nerd::Shape*)read_block(input, &bytes);
  const int32_t* numbers = (int32_t*)read_block(input, &size);  // tensors, sequences, tokens
  if (!shape || bytes != sizeof *shape || !numbers) return 2;

  Tensor* tensors = (Tensor*)calloc(numbers[0], sizeof(Tensor));
  for (int i = 0; i < numbers[0]; i++) {
    tensors[i].data = read_block(input, &tensors[i].bytes);
    if (!tensors[i].bytes) tensors[i].data = nullptr;
  }
  const int64_t *ids = (int64_t*)read_block(input, &bytes), *types = (int64_t*)read_block(input, &bytes);

  const char* error = "";
  void* opened = nerd_open(arguments[1], shape, tensors, numbers[0], &error);
  if (!opened) return fprintf(stderr, "%s\n", error), 1;
  const size_t logits = (size_t)numbers[1] * numbers[2] * shape->labels;
  float* result = (float*)calloc(logits, sizeof(float));
  if (nerd_encode(opened, nerd_scratch_open(opened, numbers[2]), ids, types, numbers[1], numbers[2], result)) return 1;
  return fwrite(result, sizeof(float), logits, output) == logits && !fclose(output) ? 0 : 1;
}
