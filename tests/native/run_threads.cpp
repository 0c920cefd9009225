// Runs an encoder in several threads at once, for the thread sanitizer.
//
// Usage: run_threads PATH INPUT [one-scratch]. All threads share one network, and each opens another one meanwhile. The
// exit code is 1 where a thread gets other logits than one alone. With one-scratch the threads share their scratch
// memory too, which is an error: the sanitizer must find it.
#include <thread>
#include <vector>

#include "encoder_file.h"

constexpr int THREADS = 4, ROUNDS = 3;

static bool gives(const EncoderFile& file, const void* opened, void* scratch, const std::vector<float>& expected) {
  std::vector<float> found(file.logits());
  if (nerd_encode(opened, scratch, file.ids, file.types, file.sequences, file.tokens, found.data())) return false;
  return !memcmp(found.data(), expected.data(), found.size() * sizeof(float));
}

static void work(const EncoderFile& file, const char* path, const void* shared, void* scratch,
                 const std::vector<float>& expected, char& is_right) {
  is_right = true;
  for (int i = 0; i < ROUNDS; i++) {
    void* own_scratch = nerd_scratch_open(shared, file.tokens);
    is_right &= gives(file, shared, scratch ? scratch : own_scratch, expected);

    const char* error = "";
    void* own = nerd_open(path, file.shape, file.tensors, file.count, &error);
    is_right &= own && gives(file, own, own_scratch, expected);
    nerd_close(own);
    nerd_scratch_close(own_scratch);
  }
}

int main(int count, char** arguments) {
  EncoderFile file;
  if (count < 3 || !read_encoder(arguments[2], file)) return 2;
  const char *path = arguments[1], *error = "";
  void* opened = nerd_open(path, file.shape, file.tensors, file.count, &error);
  if (!opened) return fprintf(stderr, "%s\n", error), 2;

  void* scratch = nerd_scratch_open(opened, file.tokens);
  std::vector<float> expected(file.logits());
  if (nerd_encode(opened, scratch, file.ids, file.types, file.sequences, file.tokens, expected.data())) return 2;

  const bool shares = count > 3 && !strcmp(arguments[3], "one-scratch");
  std::vector<std::thread> threads;
  char are_right[THREADS];
  for (char& is_right : are_right)
    threads.emplace_back([&] { work(file, path, opened, shares ? scratch : nullptr, expected, is_right); });
  for (std::thread& thread : threads) thread.join();

  nerd_scratch_close(scratch);
  nerd_close(opened);
  for (const char is_right : are_right)
    if (!is_right) return 1;
  return 0;
}
