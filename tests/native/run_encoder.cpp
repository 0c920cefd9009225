// Runs an encoder with one instruction set, on a processor that is emulated.
//
// Usage: run_encoder PATH INPUT OUTPUT. OUTPUT gets the logits.
#include "encoder_file.h"

int main(int count, char** arguments) {
  EncoderFile file;
  if (count != 4 || !read_encoder(arguments[2], file)) return 2;
  FILE* output = fopen(arguments[3], "wb");
  if (!output) return 2;

  const char* error = "";
  void* opened = nerd_open(arguments[1], file.shape, file.tensors, file.count, &error);
  if (!opened) return fprintf(stderr, "%s\n", error), 1;
  float* result = (float*)calloc(file.logits(), sizeof(float));
  void* scratch = nerd_scratch_open(opened, file.tokens);
  if (nerd_encode(opened, scratch, file.ids, file.types, file.sequences, file.tokens, result)) return 1;
  return fwrite(result, sizeof(float), file.logits(), output) == file.logits() && !fclose(output) ? 0 : 1;
}
