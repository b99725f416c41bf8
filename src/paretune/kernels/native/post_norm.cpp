// One block of BERT's kind (layer norm after each residual): forward and backward, each text on its own, so that one
// thread takes a few texts through the whole block while they are in its cache. The arithmetic is that of
// kernels/post_norm.py: products and attention in bf16, sums, residuals, norms and the softmax in fp32.
// Source: Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762). h: hidden, f: inner features, n: rows.

#include "shares.h"

namespace {

struct Block {
  Map joined, out, up, down;
  Norm first, second;
  std::int64_t heads, width, size;  // size: how many numbers it sums up
};

// What the way back wants: (n, ·) each; statistics are mean and 1 ÷ deviation of both norms. Null where there is none.
struct Kept {
  bf16 *xs, *qkv, *mixed, *r1, *ys, *u, *r2;
  float *lse, *statistics;
  bf16* low[4];
  std::int64_t seeds[4];  // of what each map's update drops
};

inline std::array<const Map*, 4> maps_of(const Block& block) {
  return {&block.joined, &block.out, &block.up, &block.down};
}

inline Kept next_kept(const Block& block, std::int64_t rows, Held& from) {
  const std::int64_t h = block.joined.in, f = block.up.out;
  Kept kept{};
  kept.xs = taken(from.narrow, rows * h), kept.qkv = taken(from.narrow, rows * 3 * h);
  kept.mixed = taken(from.narrow, rows * h), kept.r1 = taken(from.narrow, rows * h);
  kept.ys = taken(from.narrow, rows * h), kept.u = taken(from.narrow, rows * f);
  kept.r2 = taken(from.narrow, rows * h);
  kept.lse = taken(from.wide, rows * block.heads), kept.statistics = taken(from.wide, rows * 4);
  take_low(block, rows, from, kept);
  return kept;
}

// What each map got.
inline std::array<const bf16*, 4> given_to_maps(const Kept& kept, const Slopes& slopes) {
  return {kept.xs, kept.mixed, kept.ys, slopes.inner};
}

// A row of a sum (residual + what was computed) and its norm.
struct Normed {
  float mean, inverse;
};

inline Normed norm_row(const float* residual, const float* added, int h, const Norm& norm, bf16* sum16, float* y,
                       bf16* y16) {
  __m512 total = _mm512_setzero_ps();
  for (int c = 0; c < h; c += 16) {
    __m512 v = _mm512_add_ps(load(residual + c), load(added + c));
    store(y + c, v);
    if (sum16) store(sum16 + c, v);
    total = _mm512_add_ps(total, v);
  }
  float mean = _mm512_reduce_add_ps(total) / h;
  __m512 squares = _mm512_setzero_ps(), middle = _mm512_set1_ps(mean);
  for (int c = 0; c < h; c += 16) {
    __m512 v = _mm512_sub_ps(load(y + c), middle);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  float inverse = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / h + static_cast<float>(norm.epsilon));
  __m512 times = _mm512_set1_ps(inverse);
  for (int c = 0; c < h; c += 16) {
    __m512 v = _mm512_mul_ps(_mm512_sub_ps(load(y + c), middle), times);
    v = _mm512_fmadd_ps(v, load(norm.scale + c), load(norm.shift + c));
    store(y + c, v);
    if (y16) store(y16 + c, v);
  }
  return {mean, inverse};
}

// d becomes the gradient of the norm's input; its parts' gradients are added to `sums`.
inline void norm_row_back(float* d, const bf16* sum16, Normed at, int h, const Norm& norm, bf16* d16, float* sums) {
  __m512 middle = _mm512_set1_ps(at.mean), times = _mm512_set1_ps(at.inverse);
  __m512 all = _mm512_setzero_ps(), along = _mm512_setzero_ps();
  for (int c = 0; c < h; c += 16) {
    __m512 x = _mm512_mul_ps(_mm512_sub_ps(load(sum16 + c), middle), times), given = load(d + c);
    if (norm.at_scale >= 0) store(sums + norm.at_scale + c, _mm512_fmadd_ps(given, x, load(sums + norm.at_scale + c)));
    if (norm.at_shift >= 0) store(sums + norm.at_shift + c, _mm512_add_ps(given, load(sums + norm.at_shift + c)));
    __m512 g = _mm512_mul_ps(given, load(norm.scale + c));
    all = _mm512_add_ps(all, g);
    along = _mm512_fmadd_ps(g, x, along);
  }
  __m512 m1 = _mm512_set1_ps(_mm512_reduce_add_ps(all) / h), m2 = _mm512_set1_ps(_mm512_reduce_add_ps(along) / h);
  for (int c = 0; c < h; c += 16) {
    __m512 x = _mm512_mul_ps(_mm512_sub_ps(load(sum16 + c), middle), times);
    __m512 g = _mm512_mul_ps(load(d + c), load(norm.scale + c));
    g = _mm512_mul_ps(_mm512_sub_ps(_mm512_fnmadd_ps(x, m2, g), m1), times);
    store(d + c, g);
    store(d16 + c, g);
  }
}

// `x`, the hidden states of all rows, becomes those after the block.
void forward_group(const Block& block, const Batch& batch, const Group& group, float* x, const Kept& kept) {
  Room& at = own_room();
  const Drop drops[4] = {drop_of(block.joined, kept.seeds[0]), drop_of(block.out, kept.seeds[1]),
                         drop_of(block.up, kept.seeds[2]), drop_of(block.down, kept.seeds[3])};
  const std::int64_t r0 = group.first;
  const int n = static_cast<int>(group.last - r0), h = static_cast<int>(block.joined.in),
            f = static_cast<int>(block.up.out);
  const Heads heads{static_cast<int>(block.heads), static_cast<int>(block.heads), static_cast<int>(block.width), false};
  x += r0 * h;
  bf16* xs = place(kept.xs, r0, h, at.xs, n);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(n) * h; i += 16) store(xs + i, load(x + i));
  auto low = [&](int which, const Map& map) { return place(kept.low[which], r0, map.stride, at.low, n); };

  bf16* qkv = place(kept.qkv, r0, 3 * h, at.qkv, n);
  forth(block.joined, drops[0], r0, n, xs, low(0, block.joined), at, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) store(qkv + static_cast<std::int64_t>(r) * 3 * h + c0 + 16 * j, sums[j]);
  });
  bf16* mixed = place(kept.mixed, r0, h, at.mixed, n);
  attend_texts(batch, group, heads, qkv, mixed, kept.lse ? kept.lse + r0 * heads.queries : nullptr, at.attention);
  float* added = room(at.out, static_cast<std::size_t>(n) * h);
  auto set = [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) store(added + static_cast<std::int64_t>(r) * h + c0 + 16 * j, sums[j]);
  };
  forth(block.out, drops[1], r0, n, mixed, low(1, block.out), at, set);
  float* y = room(at.stream, static_cast<std::size_t>(n) * h);
  bf16* ys = place(kept.ys, r0, h, at.ys, n);
  float* statistics = kept.statistics ? kept.statistics + r0 * 4 : nullptr;
  for (int r = 0; r < n; ++r) {
    Normed one = norm_row(x + r * h, added + r * h, h, block.first, kept.r1 ? kept.r1 + (r0 + r) * h : nullptr,
                          y + r * h, ys + r * h);
    if (statistics) statistics[4 * r] = one.mean, statistics[4 * r + 1] = one.inverse;
  }
  bf16* inner = room(at.inner, static_cast<std::size_t>(n) * f);
  forth(block.up, drops[2], r0, n, ys, low(2, block.up), at, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) {
      std::int64_t where = static_cast<std::int64_t>(r) * f + c0 + 16 * j;
      __m512 u = rounded(sums[j]);
      if (kept.u) store(kept.u + r0 * f + where, u);
      store(inner + where, _mm512_mul_ps(u, phi(u)));
    }
  });
  forth(block.down, drops[3], r0, n, inner, low(3, block.down), at, set);
  for (int r = 0; r < n; ++r) {
    Normed one = norm_row(y + r * h, added + r * h, h, block.second, kept.r2 ? kept.r2 + (r0 + r) * h : nullptr,
                          x + r * h, nullptr);
    if (statistics) statistics[4 * r + 2] = one.mean, statistics[4 * r + 3] = one.inverse;
  }
}

// `d`, the gradient of what the block gave, becomes that of what it got, where that is wanted.
void backward_group(const Block& block, const Batch& batch, const Group& group, float* d, const Kept& kept,
                    const Slopes& slopes, float* sums_of, bool wants_input) {
  Room& at = own_room();
  const Drop drops[4] = {drop_of(block.joined, kept.seeds[0]), drop_of(block.out, kept.seeds[1]),
                         drop_of(block.up, kept.seeds[2]), drop_of(block.down, kept.seeds[3])};
  const std::int64_t r0 = group.first;
  const int n = static_cast<int>(group.last - r0), h = static_cast<int>(block.joined.in),
            f = static_cast<int>(block.up.out);
  const Heads heads{static_cast<int>(block.heads), static_cast<int>(block.heads), static_cast<int>(block.width), false};
  const float* statistics = kept.statistics + r0 * 4;
  auto low = [&](int which, const Map& map) { return kept.low[which] ? kept.low[which] + r0 * map.stride : nullptr; };
  d += r0 * h;
  auto add = [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) {
      float* one = d + static_cast<std::int64_t>(r) * h + c0 + 16 * j;
      store(one, _mm512_add_ps(load(one), sums[j]));
    }
  };

  bf16* d16 = place(slopes.of_map[3], r0, h, at.xs, n);
  for (int r = 0; r < n; ++r)
    norm_row_back(d + r * h, kept.r2 + (r0 + r) * h, {statistics[4 * r + 2], statistics[4 * r + 3]}, h, block.second,
                  d16 + r * h, sums_of);
  const bf16* u = kept.u + r0 * f;
  bf16* du = place(slopes.of_map[2], r0, f, at.wide_slope, n);
  bool wants_inner = block.down.at_a >= 0 || slopes.inner;
  bf16* inner = wants_inner ? place(slopes.inner, r0, f, at.inner, n) : nullptr;
  const bf16* dlow = low_back(block.down, drops[3], n, d16, at);
  back(block.down, drops[3], r0, n, d16, dlow, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) {
      std::int64_t where = static_cast<std::int64_t>(r) * f + c0 + 16 * j;
      Gelu one = gelu(load(u + where));
      store(du + where, _mm512_mul_ps(sums[j], one.slope));
      if (inner) store(inner + where, one.value);
    }
  });
  gradients(block.down, drops[3], r0, n, inner, low(3, block.down), d16, dlow, sums_of, at);

  const bf16* ys = kept.ys + r0 * h;
  dlow = low_back(block.up, drops[2], n, du, at);
  back(block.up, drops[2], r0, n, du, dlow, add);
  gradients(block.up, drops[2], r0, n, ys, low(2, block.up), du, dlow, sums_of, at);

  d16 = place(slopes.of_map[1], r0, h, at.xs, n);
  for (int r = 0; r < n; ++r)
    norm_row_back(d + r * h, kept.r1 + (r0 + r) * h, {statistics[4 * r], statistics[4 * r + 1]}, h, block.first,
                  d16 + r * h, sums_of);
  const bf16* mixed = kept.mixed + r0 * h;
  bf16* dmixed = room(at.mixed, static_cast<std::size_t>(n) * h);
  dlow = low_back(block.out, drops[1], n, d16, at);
  back(block.out, drops[1], r0, n, d16, dlow, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) store(dmixed + static_cast<std::int64_t>(r) * h + c0 + 16 * j, sums[j]);
  });
  gradients(block.out, drops[1], r0, n, mixed, low(1, block.out), d16, dlow, sums_of, at);

  const bf16* qkv = kept.qkv + r0 * 3 * h;
  bf16* dqkv = place(slopes.of_map[0], r0, 3 * h, at.qkv, n);
  attend_texts_back(batch, group, heads, qkv, mixed, kept.lse + r0 * heads.queries, dmixed, dqkv, at.attention);
  dlow = low_back(block.joined, drops[0], n, dqkv, at);
  if (wants_input) back(block.joined, drops[0], r0, n, dqkv, dlow, add);
  gradients(block.joined, drops[0], r0, n, kept.xs + r0 * h, low(0, block.joined), dqkv, dlow, sums_of, at);
}

}  // namespace

extern "C" {

// x (rows × hidden) goes through the blocks, in place.
void post_norm_forward(const Block* blocks, std::int64_t count, const Batch* batch, float* x, const Held* held) {
  forward_blocks(blocks, count, *batch, *held, [&](const Block& block, const Group& group, const Kept& kept) {
    forward_group(block, *batch, group, x, kept);
  });
}

// d, the gradient of what the last block gave, becomes that of what the first one got, where it is wanted.
void post_norm_backward(const Block* blocks, std::int64_t count, const Batch* batch, float* d, const Held* held,
                        const Grown* grown, std::int64_t wants_input) {
  backward_blocks(blocks, count, *batch, *held, *grown, wants_input != 0,
                  [&](const Block& block, const Group& group, const Kept& kept, const Slopes& slopes, float* sums,
                      bool wanted) { backward_group(block, *batch, group, d, kept, slopes, sums, wanted); });
}
}
