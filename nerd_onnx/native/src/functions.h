// exp and gelu. The system's own differ between systems in the last bit.
#pragma once
#include "lanes.h"

namespace nerd {
namespace {

// c[0] + c[1] x + c[2] x^2 + ...
template <int COUNT>
inline Floats polynomial(const float (&c)[COUNT], Floats x) {
  Floats result = all(c[COUNT - 1]);
  for (int i = COUNT - 2; i >= 0; i--) result = fma(result, x, all(c[i]));
  return result;
}

// exp(x) for x from -87 to 0, where it is a normal number; an x outside is moved to the nearer end.
//
// exp(x) = 2^n exp(r) with r = x - n log(2), and exp(r) = 1 + r + r^2 p(r). The logarithm is split in two, so that its
// first part times n is exact. The coefficients have the smallest relative error, 3e-9 before rounding to floats.
inline Floats exponential(Floats x) {
  static const float P[] = {0.49999994f, 0.1666652f, 0.041668393f, 0.008368781f, 0.0013814467f};

  x = smaller(larger(x, all(-87.0f)), all(0.0f));
  const Integers n = nearest(x * all(1.44269504f));
  Floats r = fma(floats(n), all(-0.693359375f), x);
  r = fma(floats(n), all(2.1219444e-4f), r);

  return fma(polynomial(P, r), r * r, r + all(1.0f)) * power_of_two(n);
}

// gelu(x) = x Phi(x), where Phi is the normal distribution. Phi(x) - 1/2 = x p(x^2) / q(x^2), with an error of 4e-9
// before rounding; beyond 5.25 it is a half up to the last bit. Largest error of gelu: 1.1e-6, at the ends.
inline Floats gelu(Floats x) {
  static const float P[] = {0.39894226f, 0.03273372f, 0.0046178405f, 1.5852677e-4f, 6.3923076e-6f, 2.4389827e-8f};
  static const float Q[] = {1.0f, 0.24871756f, 0.028028857f, 0.0018264675f, 7.0898546e-5f, 1.2479195e-6f};

  const Floats inner = smaller(larger(x, all(-5.25f)), all(5.25f));
  const Floats square = inner * inner;
  return x * fma(inner, polynomial(P, square) / polynomial(Q, square), all(0.5f));
}

inline Vector exponential(const Vector& x) {
  Vector y;
  for (int i = 0; i < PARTS; i++) y.part[i] = exponential(x.part[i]);
  return y;
}

inline Vector gelu(const Vector& x) {
  Vector y;
  for (int i = 0; i < PARTS; i++) y.part[i] = gelu(x.part[i]);
  return y;
}

}  // namespace
}  // namespace nerd
