// One block of a Llama-type decoder (RMS norm before each part, rotary positions, grouped queries, SwiGLU), each text
// on its own. The arithmetic is that of kernels/pre_norm.py: products and attention in bf16, sums, residuals, norms,
// rotation and softmax in fp32. Sources: Touvron et al. 2023 (https://arxiv.org/abs/2302.13971), Zhang & Sennrich 2019
// (https://arxiv.org/abs/1910.07467), Su et al. 2021 (https://arxiv.org/abs/2104.09864), Ainslie et al. 2023
// (https://arxiv.org/abs/2305.13245). h: hidden, f: inner features, n: rows.

#include "shares.h"

namespace {

struct Block {
  Map joined, out, gate_up, down;
  Norm first, second;
  std::int64_t queries, keys, width, size;  // size: how many numbers it sums up
};

// Angles of the positions: positions × half a head's features.
struct Turn {
  const float *cos, *sin;
};

// What the way back wants, (n, ·) each: `statistics` are 1 ÷ root mean square before either part. Null where there is
// none.
struct Kept {
  bf16 *x, *ys, *qkv, *mixed, *x1, *zs, *gate_up;
  float *lse, *statistics;
  bf16* low[4];
  std::int64_t seeds[4];  // of what each map's update drops
};

inline std::array<const Map*, 4> maps_of(const Block& block) {
  return {&block.joined, &block.out, &block.gate_up, &block.down};
}

inline Kept next_kept(const Block& block, std::int64_t rows, Held& from) {
  const std::int64_t h = block.joined.in, mixed = block.out.in, f = block.down.in;
  Kept kept{};
  kept.x = taken(from.narrow, rows * h), kept.ys = taken(from.narrow, rows * h);
  kept.qkv = taken(from.narrow, rows * block.joined.out), kept.mixed = taken(from.narrow, rows * mixed);
  kept.x1 = taken(from.narrow, rows * h), kept.zs = taken(from.narrow, rows * h);
  kept.gate_up = taken(from.narrow, rows * 2 * f);
  kept.lse = taken(from.wide, rows * block.queries), kept.statistics = taken(from.wide, rows * 2);
  take_low(block, rows, from, kept);
  return kept;
}

// What each map got.
inline std::array<const bf16*, 4> given_to_maps(const Kept& kept, const Slopes& slopes) {
  return {kept.ys, kept.mixed, kept.zs, slopes.inner};
}

inline float normed_row(const float* x, int h, const Norm& norm, bf16* x16, bf16* y16) {
  __m512 squares = _mm512_setzero_ps();
  for (int c = 0; c < h; c += 16) {
    __m512 v = load(x + c);
    if (x16) store(x16 + c, v);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  float inverse = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / h + static_cast<float>(norm.epsilon));
  __m512 times = _mm512_set1_ps(inverse);
  for (int c = 0; c < h; c += 16)
    store(y16 + c, _mm512_mul_ps(_mm512_mul_ps(load(x + c), times), load(norm.scale + c)));
  return inverse;
}

// Adds to `d` the gradient of the norm's input; `dy` is that of its output.
inline void normed_row_back(const float* dy, const bf16* x, float inverse, int h, const Norm& norm, float* d,
                            float* sums) {
  __m512 times = _mm512_set1_ps(inverse), along = _mm512_setzero_ps();
  for (int c = 0; c < h; c += 16) {
    __m512 v = _mm512_mul_ps(load(x + c), times), given = load(dy + c);
    if (norm.at_scale >= 0) store(sums + norm.at_scale + c, _mm512_fmadd_ps(given, v, load(sums + norm.at_scale + c)));
    along = _mm512_fmadd_ps(_mm512_mul_ps(given, load(norm.scale + c)), v, along);
  }
  __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(along) / h);
  for (int c = 0; c < h; c += 16) {
    __m512 v = _mm512_mul_ps(load(x + c), times);
    __m512 g = _mm512_fnmadd_ps(v, mean, _mm512_mul_ps(load(dy + c), load(norm.scale + c)));
    store(d + c, _mm512_fmadd_ps(g, times, load(d + c)));
  }
}

// Queries and keys of a row turned by its position's angles, in place; sign −1: back again.
inline void turn(bf16* row, int heads, int width, const float* cos, const float* sin, float sign) {
  const int half = width / 2;
  for (int h = 0; h < heads; ++h)
    for (int c = 0; c < half; c += 16) {
      bf16 *first = row + h * width + c, *second = first + half;
      __m512 a = load(first), b = load(second), co = load(cos + c),
             si = _mm512_mul_ps(load(sin + c), _mm512_set1_ps(sign));
      store(first, _mm512_fmsub_ps(a, co, _mm512_mul_ps(b, si)));
      store(second, _mm512_fmadd_ps(b, co, _mm512_mul_ps(a, si)));
    }
}

inline __m512 sigmoid(__m512 x) {
  __m512 below = _mm512_add_ps(_mm512_set1_ps(1.0f), exp2_16(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E))));
  return _mm512_div_ps(_mm512_set1_ps(1.0f), below);
}

inline Heads heads_of(const Block& block) {
  return {static_cast<int>(block.queries), static_cast<int>(block.keys), static_cast<int>(block.width), true};
}

void turn_texts(const Block& block, const Batch& batch, const Group& group, const Turn& by, bf16* qkv, float sign) {
  const Heads heads = heads_of(block);
  const std::int64_t half = block.width / 2;
  for (std::int64_t t = group.text; t < group.end; ++t)
    for (std::int64_t row = batch.starts[t]; row < batch.starts[t + 1]; ++row) {
      std::int64_t position = row - batch.starts[t];
      turn(qkv + (row - group.first) * heads.stride(), heads.queries + heads.keys, heads.width,
           by.cos + position * half, by.sin + position * half, sign);
    }
}

// `x`, the hidden states of all rows, becomes those after the block.
void forward_group(const Block& block, const Batch& batch, const Group& group, const Turn& by, float* x,
                   const Kept& kept) {
  Room& at = own_room();
  const Drop drops[4] = {drop_of(block.joined, kept.seeds[0]), drop_of(block.out, kept.seeds[1]),
                         drop_of(block.gate_up, kept.seeds[2]), drop_of(block.down, kept.seeds[3])};
  const std::int64_t r0 = group.first;
  const int n = static_cast<int>(group.last - r0), h = static_cast<int>(block.joined.in),
            f = static_cast<int>(block.down.in);
  const Heads heads = heads_of(block);
  const std::int64_t wide = heads.stride(), mixed_width = block.out.in;
  x += r0 * h;
  float* statistics = kept.statistics ? kept.statistics + r0 * 2 : nullptr;
  auto low = [&](int which, const Map& map) { return place(kept.low[which], r0, map.stride, at.low, n); };

  bf16* ys = place(kept.ys, r0, h, at.ys, n);
  for (int r = 0; r < n; ++r) {
    float inverse = normed_row(x + r * h, h, block.first, kept.x ? kept.x + (r0 + r) * h : nullptr, ys + r * h);
    if (statistics) statistics[2 * r] = inverse;
  }
  bf16* qkv = place(kept.qkv, r0, wide, at.qkv, n);
  forth(block.joined, drops[0], r0, n, ys, low(0, block.joined), at, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) store(qkv + r * wide + c0 + 16 * j, sums[j]);
  });
  turn_texts(block, batch, group, by, qkv, 1.0f);
  bf16* mixed = place(kept.mixed, r0, mixed_width, at.mixed, n);
  attend_texts(batch, group, heads, qkv, mixed, kept.lse ? kept.lse + r0 * heads.queries : nullptr, at.attention);
  float* stream = room(at.stream, static_cast<std::size_t>(n) * h);
  forth(block.out, drops[1], r0, n, mixed, low(1, block.out), at, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j)
      store(stream + r * h + c0 + 16 * j, _mm512_add_ps(sums[j], load(x + r * h + c0 + 16 * j)));
  });
  bf16* zs = place(kept.zs, r0, h, at.xs, n);
  for (int r = 0; r < n; ++r) {
    float inverse = normed_row(stream + r * h, h, block.second, kept.x1 ? kept.x1 + (r0 + r) * h : nullptr, zs + r * h);
    if (statistics) statistics[2 * r + 1] = inverse;
  }
  bf16* gate_up = place(kept.gate_up, r0, 2 * f, at.wide_slope, n);
  forth(block.gate_up, drops[2], r0, n, zs, low(2, block.gate_up), at, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) store(gate_up + static_cast<std::int64_t>(r) * 2 * f + c0 + 16 * j, sums[j]);
  });
  bf16* inner = room(at.inner, static_cast<std::size_t>(n) * f);
  for (int r = 0; r < n; ++r)
    for (int c = 0; c < f; c += 16) {
      const bf16* row = gate_up + static_cast<std::int64_t>(r) * 2 * f;
      __m512 gate = load(row + c);
      store(inner + static_cast<std::int64_t>(r) * f + c,
            _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), load(row + f + c)));
    }
  forth(block.down, drops[3], r0, n, inner, low(3, block.down), at, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j)
      store(x + r * h + c0 + 16 * j, _mm512_add_ps(sums[j], load(stream + r * h + c0 + 16 * j)));
  });
}

// `d`, the gradient of what the block gave, becomes that of what it got, where that is wanted.
void backward_group(const Block& block, const Batch& batch, const Group& group, const Turn& by, float* d,
                    const Kept& kept, const Slopes& slopes, float* sums_of, bool wants_input) {
  Room& at = own_room();
  const Drop drops[4] = {drop_of(block.joined, kept.seeds[0]), drop_of(block.out, kept.seeds[1]),
                         drop_of(block.gate_up, kept.seeds[2]), drop_of(block.down, kept.seeds[3])};
  const std::int64_t r0 = group.first;
  const int n = static_cast<int>(group.last - r0), h = static_cast<int>(block.joined.in),
            f = static_cast<int>(block.down.in);
  const Heads heads = heads_of(block);
  const std::int64_t wide = heads.stride(), mixed_width = block.out.in;
  const float* statistics = kept.statistics + r0 * 2;
  auto low = [&](int which, const Map& map) { return kept.low[which] ? kept.low[which] + r0 * map.stride : nullptr; };
  d += r0 * h;
  float* slope = room(at.stream, static_cast<std::size_t>(n) * h);
  auto set = [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) store(slope + r * h + c0 + 16 * j, sums[j]);
  };
  auto narrowed = [&](bf16* to) {
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(n) * h; i += 16) store(to + i, load(d + i));
  };

  bf16* d16 = place(slopes.of_map[3], r0, h, at.xs, n);
  narrowed(d16);
  const bf16* gate_up = kept.gate_up + r0 * 2 * f;
  bf16* dgate_up = place(slopes.of_map[2], r0, 2 * f, at.wide_slope, n);
  bool wants_inner = block.down.at_a >= 0 || slopes.inner;
  bf16* inner = wants_inner ? place(slopes.inner, r0, f, at.inner, n) : nullptr;
  const bf16* dlow = low_back(block.down, drops[3], n, d16, at);
  back(block.down, drops[3], r0, n, d16, dlow, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) {
      int c = c0 + 16 * j;
      std::int64_t row = static_cast<std::int64_t>(r) * 2 * f;
      __m512 gate = load(gate_up + row + c), up = load(gate_up + row + f + c), share = sigmoid(gate);
      __m512 through = _mm512_mul_ps(gate, share);
      __m512 rise = _mm512_fmadd_ps(through, _mm512_sub_ps(_mm512_set1_ps(1.0f), share), share);
      store(dgate_up + row + c, _mm512_mul_ps(_mm512_mul_ps(sums[j], up), rise));
      store(dgate_up + row + f + c, _mm512_mul_ps(sums[j], through));
      if (inner) store(inner + static_cast<std::int64_t>(r) * f + c, _mm512_mul_ps(through, up));
    }
  });
  gradients(block.down, drops[3], r0, n, inner, low(3, block.down), d16, dlow, sums_of, at);

  dlow = low_back(block.gate_up, drops[2], n, dgate_up, at);
  back(block.gate_up, drops[2], r0, n, dgate_up, dlow, set);
  gradients(block.gate_up, drops[2], r0, n, kept.zs + r0 * h, low(2, block.gate_up), dgate_up, dlow, sums_of, at);
  for (int r = 0; r < n; ++r)
    normed_row_back(slope + r * h, kept.x1 + (r0 + r) * h, statistics[2 * r + 1], h, block.second, d + r * h, sums_of);

  d16 = place(slopes.of_map[1], r0, h, at.xs, n);
  narrowed(d16);
  bf16* dmixed = room(at.mixed, static_cast<std::size_t>(n) * mixed_width);
  const bf16* mixed = kept.mixed + r0 * mixed_width;
  dlow = low_back(block.out, drops[1], n, d16, at);
  back(block.out, drops[1], r0, n, d16, dlow, [&](int r, int c0, __m512* sums) {
    for (int j = 0; j < 4; ++j) store(dmixed + r * mixed_width + c0 + 16 * j, sums[j]);
  });
  gradients(block.out, drops[1], r0, n, mixed, low(1, block.out), d16, dlow, sums_of, at);

  const bf16* qkv = kept.qkv + r0 * wide;
  bf16* dqkv = place(slopes.of_map[0], r0, wide, at.qkv, n);
  attend_texts_back(batch, group, heads, qkv, mixed, kept.lse + r0 * heads.queries, dmixed, dqkv, at.attention);
  turn_texts(block, batch, group, by, dqkv, -1.0f);
  dlow = low_back(block.joined, drops[0], n, dqkv, at);
  gradients(block.joined, drops[0], r0, n, kept.ys + r0 * h, low(0, block.joined), dqkv, dlow, sums_of, at);
  if (!wants_input && block.first.at_scale < 0) return;
  back(block.joined, drops[0], r0, n, dqkv, dlow, set);
  for (int r = 0; r < n; ++r)
    normed_row_back(slope + r * h, kept.x + (r0 + r) * h, statistics[2 * r], h, block.first, d + r * h, sums_of);
}

}  // namespace

extern "C" {

// x (rows × hidden) goes through the blocks, in place.
void pre_norm_forward(const Block* blocks, std::int64_t count, const Batch* batch, const Turn* by, float* x,
                      const Held* held) {
  forward_blocks(blocks, count, *batch, *held, [&](const Block& block, const Group& group, const Kept& kept) {
    forward_group(block, *batch, group, *by, x, kept);
  });
}

// d, the gradient of what the last block gave, becomes that of what the first one got, where it is wanted.
void pre_norm_backward(const Block* blocks, std::int64_t count, const Batch* batch, const Turn* by, float* d,
                       const Held* held, const Grown* grown, std::int64_t wants_input) {
  backward_blocks(blocks, count, *batch, *held, *grown, wants_input != 0,
                  [&](const Block& block, const Group& group, const Kept& kept, const Slopes& slopes, float* sums,
                      bool wanted) { backward_group(block, *batch, group, *by, d, kept, slopes, sums, wanted); });
}
}
