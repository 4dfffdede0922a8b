// The practical limit that benchmarks/scan.py compares with: the selective scan written by hand for one instruction
// set, forward and backward, float32, softplus always on. Compiled on the spot with -O3 -march=native.
//
//   dt_t = softplus(delta_t + bias),  h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  y_t = C_t . h_t + D u_t
//
// One SIMD lane is one channel (16 lanes with AVX-512, 8 with AVX2); the states of a lane live in registers. Time goes
// in tiles of 16 steps; a tile of a channels-first tensor is transposed in registers. The forward keeps the state at
// the start of every tile, the backward computes the states of a tile again. Gradients of B and C add up over the
// channels of a group in lanes and are folded once a step. Threads own channels, so nothing is shared but the final sum.
// Not for general use: channels must be a multiple of the lanes, states 1 or 16.

#include <immintrin.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int W = 16;
using V = __m512;
inline V set1(float x) { return _mm512_set1_ps(x); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V x) { _mm512_storeu_ps(p, x); }
inline V add(V a, V b) { return _mm512_add_ps(a, b); }
inline V sub(V a, V b) { return _mm512_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V quot(V a, V b) { return _mm512_div_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V vmax(V a, V b) { return _mm512_max_ps(a, b); }
inline V nabs(V a) { return _mm512_or_ps(a, _mm512_set1_ps(-0.0f)); }
inline V where_positive(V x, V a, V b) { return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), a, b); }
inline V nearest(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V scale(V a, V i) { return _mm512_scalef_ps(a, i); }  // a * 2^i, also below the normal range
inline V floor_exponent(V a) { return a; }                   // scalef takes any exponent
inline float sum(V a) { return _mm512_reduce_add_ps(a); }

inline void transpose(const float* in, ptrdiff_t in_row, float* out, ptrdiff_t out_row) {
  V r[16], s[16];
  for (int i = 0; i < 16; ++i) r[i] = load(in + i * in_row);
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      s[i + j] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0x88);
      s[i + j + 4] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {
    store(out + j * out_row, _mm512_shuffle_f32x4(s[j], s[j + 8], 0x88));
    store(out + (j + 8) * out_row, _mm512_shuffle_f32x4(s[j], s[j + 8], 0xdd));
  }
}
#else
constexpr int W = 8;
using V = __m256;
inline V set1(float x) { return _mm256_set1_ps(x); }
inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, V x) { _mm256_storeu_ps(p, x); }
inline V add(V a, V b) { return _mm256_add_ps(a, b); }
inline V sub(V a, V b) { return _mm256_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm256_mul_ps(a, b); }
inline V quot(V a, V b) { return _mm256_div_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V vmax(V a, V b) { return _mm256_max_ps(a, b); }
inline V nabs(V a) { return _mm256_or_ps(a, _mm256_set1_ps(-0.0f)); }
inline V where_positive(V x, V a, V b) { return _mm256_blendv_ps(a, b, x); }
inline V nearest(V a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V scale(V a, V i) {
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(i), 23)));
}
inline V floor_exponent(V a) { return _mm256_max_ps(a, _mm256_set1_ps(-125.0f)); }  // keeps 2^i a normal number
inline float sum(V a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

inline void transpose(const float* in, ptrdiff_t in_row, float* out, ptrdiff_t out_row) {
  V r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = load(in + i * in_row);
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    store(out + i * out_row, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    store(out + (i + 4) * out_row, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
#endif

constexpr int T = 16;            // steps in a tile, also the distance of kept states
constexpr int GROUP = 4;         // channel blocks whose B and C gradients add up before they are folded
constexpr int WIDE = 8;           // channel blocks side by side in the forward of a channels-last tensor
constexpr float LOG2E = 1.44269504088896341f;

// 2^x for x <= 0 or moderate: x = i + r with |r| <= 1/2, 2^r by a minimax polynomial (relative error 1.1e-7).
inline V exp2v(V x) {
  x = floor_exponent(x);
  const V i = nearest(x);
  const V r = sub(x, i);
  V p = fma(set1(1.33335581e-3f), r, set1(9.61812911e-3f));
  p = fma(p, r, set1(5.55041087e-2f));
  p = fma(p, r, set1(2.40226507e-1f));
  p = fma(p, r, set1(6.93147181e-1f));
  p = fma(p, r, set1(1.0f));
  return scale(p, i);
}

struct Softplus {
  V value, slope;
};

// softplus(x) = max(x, 0) + log1p(exp(-|x|)) with log1p(z) = 2 atanh(z / (2 + z)); slope is the logistic function.
template <bool SLOPE>
inline Softplus softplus(V x) {
  const V one = set1(1.0f);
  const V z = exp2v(mul(nabs(x), set1(LOG2E)));
  const V s = quot(z, add(z, set1(2.0f)));
  const V q = mul(s, s);
  V p = fma(set1(2.0f / 13), q, set1(2.0f / 11));
  p = fma(p, q, set1(2.0f / 9));
  p = fma(p, q, set1(2.0f / 7));
  p = fma(p, q, set1(2.0f / 5));
  p = fma(p, q, set1(2.0f / 3));
  p = fma(p, q, set1(2.0f));
  Softplus out;
  out.value = fma(p, s, vmax(x, set1(0.0f)));
  out.slope = one;
  if (SLOPE) {
    const V inverse = quot(one, add(one, z));
    out.slope = where_positive(x, inverse, mul(z, inverse));
  }
  return out;
}

// A tile of T steps and W channels as [step][channel], whatever the layout of the tensor; steps beyond the end are 0.
// The tile that comes `ahead` steps later is asked for in advance.
template <bool FIRST>
inline void read_tile(const float* x, ptrdiff_t L, ptrdiff_t d, ptrdiff_t t0, ptrdiff_t c0, int steps, float* tile,
                      int ahead) {
  if (!FIRST) {
    for (int t = 0; t < steps; ++t) {
      _mm_prefetch(x + (t0 + t + ahead) * d + c0, _MM_HINT_T0);
      store(tile + t * W, load(x + (t0 + t) * d + c0));
    }
    for (int t = steps; t < T; ++t) store(tile + t * W, set1(0.0f));
  } else if (steps == T) {
    for (int c = 0; c < W; ++c) _mm_prefetch(x + (c0 + c) * L + t0 + 2 * ahead, _MM_HINT_T0);
    for (int t = 0; t < T; t += W) transpose(x + c0 * L + t0 + t, L, tile + t * W, W);
  } else {
    std::memset(tile, 0, sizeof(float) * T * W);
    for (int c = 0; c < W; ++c)
      for (int t = 0; t < steps; ++t) tile[t * W + c] = x[(c0 + c) * L + t0 + t];
  }
}

template <bool FIRST>
inline void write_tile(float* x, ptrdiff_t L, ptrdiff_t d, ptrdiff_t t0, ptrdiff_t c0, int steps, const float* tile) {
  if (!FIRST) {
    for (int t = 0; t < steps; ++t) store(x + (t0 + t) * d + c0, load(tile + t * W));
  } else if (steps == T) {
    for (int t = 0; t < T; t += W) transpose(tile + t * W, W, x + c0 * L + t0 + t, L);
  } else {
    for (int c = 0; c < W; ++c)
      for (int t = 0; t < steps; ++t) x[(c0 + c) * L + t0 + t] = tile[t * W + c];
  }
}

struct Sizes {
  ptrdiff_t batch, L, d;
  ptrdiff_t tiles() const { return (L + T - 1) / T; }
  ptrdiff_t blocks() const { return d / W; }
};

// B and C as (batch, L rounded up to T, N), the order in which the steps read them.
template <int N, bool FIRST>
std::vector<float> by_step(const float* x, const Sizes& s) {
  const ptrdiff_t padded = s.tiles() * T;
  std::vector<float> out(s.batch * padded * N, 0.0f);
  for (ptrdiff_t b = 0; b < s.batch; ++b)
    if (FIRST) {
      for (ptrdiff_t t = 0; t < s.L; ++t)
        for (int n = 0; n < N; ++n) out[(b * padded + t) * N + n] = x[(b * N + n) * s.L + t];
    } else {
      std::memcpy(&out[b * padded * N], x + b * s.L * N, sizeof(float) * s.L * N);
    }
  return out;
}

// A of W channels as [state][channel], times log2(e) so that exp becomes exp2.
template <int N>
inline void read_a(const float* A, ptrdiff_t c0, float factor, float* a) {
  for (int n = 0; n < N; ++n)
    for (int c = 0; c < W; ++c) a[n * W + c] = A[(c0 + c) * N + n] * factor;
}

template <int N, bool FIRST>
void forward_group(const Sizes& s, ptrdiff_t b, ptrdiff_t first, int count, const float* u, const float* delta,
                   const float* A, const float* B, const float* C, const float* D, const float* bias, float* y,
                   float* kept) {
  alignas(64) float a[WIDE][N * W], state[WIDE][N * W] = {};
  alignas(64) float ut[T * W], xt[T * W], yt[T * W];
  for (int i = 0; i < count; ++i) read_a<N>(A, (first + i) * W, LOG2E, a[i]);
  const ptrdiff_t offset = b * s.L * s.d;
  for (ptrdiff_t tile = 0; tile < s.tiles(); ++tile) {
    const ptrdiff_t t0 = tile * T;
    const int steps = s.L - t0 < T ? int(s.L - t0) : T;
    const float* bt = B + (b * s.tiles() * T + t0) * N;
    const float* ct = C + (b * s.tiles() * T + t0) * N;
    for (int i = 0; i < count; ++i) {
      const ptrdiff_t c0 = (first + i) * W;
      read_tile<FIRST>(u + offset, s.L, s.d, t0, c0, steps, ut, T);
      read_tile<FIRST>(delta + offset, s.L, s.d, t0, c0, steps, xt, T);
      const V skip = load(D + c0), shift = load(bias + c0);
      V h[N];
      for (int n = 0; n < N; ++n) h[n] = load(state[i] + n * W);
      if (kept)
        for (int n = 0; n < N; ++n)
          store(kept + (((b * s.blocks() + first + i) * s.tiles() + tile) * N + n) * W, h[n]);
      for (int t = 0; t < steps; ++t) store(xt + t * W, softplus<false>(add(load(xt + t * W), shift)).value);
      for (int t = 0; t < steps; ++t) {
        const V x = load(ut + t * W), dt = load(xt + t * W), dtx = mul(dt, x);
        V sum0 = mul(skip, x), sum1 = set1(0.0f);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          const V decay = exp2v(mul(dt, load(a[i] + n * W)));
          h[n] = fma(decay, h[n], mul(dtx, set1(bt[t * N + n])));
          if (n & 1)
            sum1 = fma(h[n], set1(ct[t * N + n]), sum1);
          else
            sum0 = fma(h[n], set1(ct[t * N + n]), sum0);
        }
        store(yt + t * W, add(sum0, sum1));
      }
      for (int n = 0; n < N; ++n) store(state[i] + n * W, h[n]);
      write_tile<FIRST>(y + offset, s.L, s.d, t0, c0, steps, yt);
    }
  }
}

struct Gradients {
  float *u, *delta, *A, *D, *bias;
};

template <int N, bool FIRST>
void backward_group(const Sizes& s, ptrdiff_t b, ptrdiff_t first, int count, const float* u, const float* delta,
                    const float* A, const float* B, const float* C, const float* D, const float* bias,
                    const float* gy, const float* kept, const Gradients& g, float* gB, float* gC) {
  // The gradient of the state and the sums over time, for each block of the group.
  alignas(64) float gh[GROUP][N * W] = {}, gA[GROUP][N * W] = {}, gD[GROUP][W] = {}, gbias[GROUP][W] = {};
  alignas(64) float a[GROUP][N * W];
  alignas(64) float ut[T * W], xt[T * W], dtt[T * W], gyt[T * W], gut[T * W], gxt[T * W];
  alignas(64) float past[T * N * W], decays[T * N * W], sumB[T * N * W], sumC[T * N * W];
  for (int i = 0; i < count; ++i) read_a<N>(A, (first + i) * W, LOG2E, a[i]);
  for (ptrdiff_t tile = s.tiles() - 1; tile >= 0; --tile) {
    const ptrdiff_t t0 = tile * T;
    const int steps = s.L - t0 < T ? int(s.L - t0) : T;
    const float* bt = B + (b * s.tiles() * T + t0) * N;
    const float* ct = C + (b * s.tiles() * T + t0) * N;
    for (int i = 0; i < count; ++i) {
      const ptrdiff_t c0 = (first + i) * W;
      const ptrdiff_t offset = b * s.L * s.d;
      read_tile<FIRST>(u + offset, s.L, s.d, t0, c0, steps, ut, -T);
      read_tile<FIRST>(delta + offset, s.L, s.d, t0, c0, steps, xt, -T);
      read_tile<FIRST>(gy + offset, s.L, s.d, t0, c0, steps, gyt, -T);
      const V skip = load(D + c0), shift = load(bias + c0);
      for (int t = 0; t < steps; ++t) {
        const Softplus p = softplus<true>(add(load(xt + t * W), shift));
        store(dtt + t * W, p.value);
        store(xt + t * W, p.slope);
      }
      V h[N];
      const float* start = kept + ((b * s.blocks() + first + i) * s.tiles() + tile) * N * W;
      for (int n = 0; n < N; ++n) h[n] = load(start + n * W);
      // The gradient of C needs the state after the step, so it is taken in this sweep; that of B in the next.
      for (int t = 0; t < steps; ++t) {
        const V dt = load(dtt + t * W), dtx = mul(dt, load(ut + t * W)), gyv = load(gyt + t * W);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          const int at = (t * N + n) * W;
          const V decay = exp2v(mul(dt, load(a[i] + n * W)));
          store(past + at, h[n]);
          store(decays + at, decay);
          h[n] = fma(decay, h[n], mul(dtx, set1(bt[t * N + n])));
          store(sumC + at, i == 0 ? mul(gyv, h[n]) : fma(gyv, h[n], load(sumC + at)));
        }
      }
      V gate[N];
      for (int n = 0; n < N; ++n) gate[n] = load(gh[i] + n * W);
      V gDv = load(gD[i]), gbv = load(gbias[i]);
      for (int t = steps - 1; t >= 0; --t) {
        const V dt = load(dtt + t * W), x = load(ut + t * W), dtx = mul(dt, x), gyv = load(gyt + t * W);
        V through = set1(0.0f), rate0 = set1(0.0f), rate1 = set1(0.0f);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          const int at = (t * N + n) * W;
          const V ghn = fma(gyv, set1(ct[t * N + n]), gate[n]);
          store(sumB + at, i == 0 ? mul(ghn, dtx) : fma(ghn, dtx, load(sumB + at)));
          through = fma(ghn, set1(bt[t * N + n]), through);
          gate[n] = mul(ghn, load(decays + at));
          const V w = mul(gate[n], load(past + at));
          store(gA[i] + n * W, fma(dt, w, load(gA[i] + n * W)));
          if (n & 1)
            rate1 = fma(load(a[i] + n * W), w, rate1);
          else
            rate0 = fma(load(a[i] + n * W), w, rate0);
        }
        store(gut + t * W, fma(skip, gyv, mul(dt, through)));
        const V rate = fma(add(rate0, rate1), set1(1.0f / LOG2E), mul(x, through));
        const V gx = mul(rate, load(xt + t * W));
        store(gxt + t * W, gx);
        gbv = add(gbv, gx);
        gDv = fma(gyv, x, gDv);
      }
      for (int n = 0; n < N; ++n) store(gh[i] + n * W, gate[n]);
      store(gD[i], gDv);
      store(gbias[i], gbv);
      write_tile<FIRST>(g.u + offset, s.L, s.d, t0, c0, steps, gut);
      write_tile<FIRST>(g.delta + offset, s.L, s.d, t0, c0, steps, gxt);
    }
    // Folding the lanes: N == W as one transposed sum a step, else lane by lane.
    for (int t = 0; t < steps; ++t) {
      float* outB = gB + (b * s.tiles() * T + t0 + t) * N;
      float* outC = gC + (b * s.tiles() * T + t0 + t) * N;
      if (N % W == 0) {
        alignas(64) float turned[W * W];
        for (int n = 0; n < N; n += W) {
          for (int which = 0; which < 2; ++which) {
            float* out = (which ? outC : outB) + n;
            transpose((which ? sumC : sumB) + (t * N + n) * W, W, turned, W);
            V part[4];
            for (int j = 0; j < 4; ++j) part[j] = load(turned + j * W);
            for (int c = 4; c < W; ++c) part[c & 3] = add(part[c & 3], load(turned + c * W));
            store(out, add(load(out), add(add(part[0], part[1]), add(part[2], part[3]))));
          }
        }
      } else {
        for (int n = 0; n < N; ++n) {
          outB[n] += sum(load(sumB + (t * N + n) * W));
          outC[n] += sum(load(sumC + (t * N + n) * W));
        }
      }
    }
  }
  for (int i = 0; i < count; ++i)
    for (int c = 0; c < W; ++c) {
      const ptrdiff_t channel = (first + i) * W + c;
      for (int n = 0; n < N; ++n) g.A[channel * N + n] += gA[i][n * W + c];
      g.D[channel] += gD[i][c];
      g.bias[channel] += gbias[i][c];
    }
}

// Every thread gets a range of channel blocks, for all batch elements.
void in_threads(int threads, ptrdiff_t blocks, const std::function<void(int, ptrdiff_t, ptrdiff_t)>& work) {
  if (threads > blocks) threads = int(blocks);
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i)
    others.emplace_back([&, i] { work(i, blocks * i / threads, blocks * (i + 1) / threads); });
  work(0, 0, blocks / threads);
  for (auto& other : others) other.join();
}

template <int N, bool FIRST>
void forward(const Sizes& s, const float* u, const float* delta, const float* A, const float* B, const float* C,
             const float* D, const float* bias, float* y, float* kept, int threads) {
  const std::vector<float> bt = by_step<N, FIRST>(B, s), ct = by_step<N, FIRST>(C, s);
  in_threads(threads, s.blocks(), [&](int, ptrdiff_t from, ptrdiff_t to) {
    const int wide = FIRST ? 1 : WIDE;
    for (ptrdiff_t b = 0; b < s.batch; ++b)
      for (ptrdiff_t block = from; block < to; block += wide)
        forward_group<N, FIRST>(s, b, block, int(to - block < wide ? to - block : wide), u, delta, A, bt.data(),
                                ct.data(), D, bias, y, kept);
  });
}

template <int N, bool FIRST>
void backward(const Sizes& s, const float* u, const float* delta, const float* A, const float* B, const float* C,
              const float* D, const float* bias, const float* gy, const float* kept, const Gradients& g, float* gB,
              float* gC, int threads) {
  const std::vector<float> bt = by_step<N, FIRST>(B, s), ct = by_step<N, FIRST>(C, s);
  const ptrdiff_t padded = s.tiles() * T, size = s.batch * padded * N;
  std::vector<float> partial(2 * size * threads, 0.0f);
  std::memset(g.A, 0, sizeof(float) * s.d * N);
  std::memset(g.D, 0, sizeof(float) * s.d);
  std::memset(g.bias, 0, sizeof(float) * s.d);
  in_threads(threads, s.blocks(), [&](int i, ptrdiff_t from, ptrdiff_t to) {
    float* ownB = &partial[2 * size * i];
    for (ptrdiff_t b = 0; b < s.batch; ++b)
      for (ptrdiff_t block = from; block < to; block += GROUP)
        backward_group<N, FIRST>(s, b, block, int(to - block < GROUP ? to - block : GROUP), u, delta, A, bt.data(),
                                 ct.data(), D, bias, gy, kept, g, ownB, ownB + size);
  });
  for (ptrdiff_t b = 0; b < s.batch; ++b)
    for (ptrdiff_t t = 0; t < s.L; ++t)
      for (int n = 0; n < N; ++n) {
        const ptrdiff_t from = (b * padded + t) * N + n;
        const ptrdiff_t to = FIRST ? (b * N + n) * s.L + t : (b * s.L + t) * N + n;
        float sumB = 0.0f, sumC = 0.0f;
        for (int i = 0; i < threads; ++i) {
          sumB += partial[2 * size * i + from];
          sumC += partial[2 * size * i + size + from];
        }
        gB[to] = sumB;
        gC[to] = sumC;
      }
}

template <typename F>
int dispatch(int N, int channels_first, F&& call) {
  using std::integral_constant;
  if (N == 16 && channels_first) return call(integral_constant<int, 16>(), std::true_type()), 0;
  if (N == 16) return call(integral_constant<int, 16>(), std::false_type()), 0;
  if (N == 1 && channels_first) return call(integral_constant<int, 1>(), std::true_type()), 0;
  if (N == 1) return call(integral_constant<int, 1>(), std::false_type()), 0;
  return 1;
}

}  // namespace

extern "C" {

int scan_lanes() { return W; }

// Number of floats of the kept states, for scan_forward and scan_backward.
long scan_kept(long batch, long L, long d, int N) { return batch * Sizes{batch, L, d}.tiles() * d * N; }

// Layouts: channels_first: u, delta, y (batch, d, L), B, C (batch, N, L); else (batch, L, d) and (batch, L, N).
int scan_forward(const float* u, const float* delta, const float* A, const float* B, const float* C, const float* D,
                 const float* bias, float* y, float* kept, long batch, long L, long d, int N, int channels_first,
                 int threads) {
  if (d % W) return 1;
  return dispatch(N, channels_first, [&](auto n, auto first) {
    forward<decltype(n)::value, decltype(first)::value>({batch, L, d}, u, delta, A, B, C, D, bias, y, kept, threads);
  });
}

int scan_backward(const float* u, const float* delta, const float* A, const float* B, const float* C, const float* D,
                  const float* bias, const float* gy, const float* kept, float* gu, float* gdelta, float* gA, float* gB,
                  float* gC, float* gD, float* gbias, long batch, long L, long d, int N, int channels_first,
                  int threads) {
  if (d % W) return 1;
  return dispatch(N, channels_first, [&](auto n, auto first) {
    backward<decltype(n)::value, decltype(first)::value>({batch, L, d}, u, delta, A, B, C, D, bias, gy, kept,
                                                         {gu, gdelta, gA, gD, gbias}, gB, gC, threads);
  });
}

}  // extern "C"
