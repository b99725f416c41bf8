// How threads share a batch, and what both kinds of block have in common. Shares are fixed, whichever thread takes
// them, so that sums over rows do not depend on the number of threads.
#pragma once

#include <omp.h>

#include <array>

#include "maps.h"

// Gradients of what each map gave, and of what the last one got, for the gradients of weights that learn; else null.
struct Slopes {
  bf16* of_map[4];
  bf16* inner;
};

// Scale and shift of a norm; its sums begin at these places, −1 where it does not learn.
struct Norm {
  const float *scale, *shift;
  double epsilon;
  std::int64_t at_scale, at_shift;
};

// The kept array from a row on, or this thread's own.
inline bf16* place(bf16* kept, std::int64_t row, std::int64_t width, std::vector<bf16>& own, int rows) {
  return kept ? kept + row * width : room(own, static_cast<std::size_t>(rows) * width);
}

// Attention of a group's texts; `qkv`, `mixed` and `lse` begin at the group's first row. `lse` is null where it is not
// wanted.
inline void attend_texts(const Batch& batch, const Group& group, const Heads& heads, const bf16* qkv, bf16* mixed,
                         float* lse, AttentionRoom& at) {
  const std::int64_t wide = heads.stride(), width = static_cast<std::int64_t>(heads.queries) * heads.width;
  for (std::int64_t t = group.text; t < group.end; ++t) {
    std::int64_t from = batch.starts[t] - group.first;
    int tokens = static_cast<int>(batch.starts[t + 1] - batch.starts[t]);
    attend(tokens, heads, qkv + from * wide, mixed + from * width, lse ? lse + from * heads.queries : nullptr, at);
  }
}

inline void attend_texts_back(const Batch& batch, const Group& group, const Heads& heads, const bf16* qkv,
                              const bf16* mixed, const float* lse, const bf16* dmixed, bf16* dqkv, AttentionRoom& at) {
  const std::int64_t wide = heads.stride(), width = static_cast<std::int64_t>(heads.queries) * heads.width;
  for (std::int64_t t = group.text; t < group.end; ++t) {
    std::int64_t from = batch.starts[t] - group.first;
    int tokens = static_cast<int>(batch.starts[t + 1] - batch.starts[t]);
    attend_back(tokens, heads, qkv + from * wide, mixed + from * width, lse + from * heads.queries,
                dmixed + from * width, dqkv + from * wide, at);
  }
}

// What blocks keep for the way back: two arrays in which theirs stand one after another, null where nothing is kept;
// and four seeds for each block, of what its maps' updates drop.
struct Held {
  bf16* narrow;
  float* wide;
  const std::int64_t* seeds;
};

// The next numbers of an array; null where there is none.
template <class T>
inline T* taken(T*& from, std::int64_t count) {
  T* found = from;
  if (from) from += count;
  return found;
}

// The rows of a block's updates, and their seeds.
template <class Block, class Kept>
void take_low(const Block& block, std::int64_t rows, Held& from, Kept& kept) {
  const auto maps = maps_of(block);
  for (int j = 0; j < 4; ++j) {
    kept.low[j] = maps[j]->rank ? taken(from.narrow, rows * maps[j]->stride) : nullptr;
    kept.seeds[j] = from.seeds[j];
  }
  from.seeds += 4;
}

// Room for gradients and where they go: `sums` has the batch's shares × the largest of the blocks' sizes, `total` what
// all blocks sum up, one after another, times `factors`. `weights`, four for each block, are where gradients of weights
// go, null where one does not learn; `slopes` is room for what they are computed from, of one block.
struct Grown {
  float* sums;
  float* total;
  const float* factors;
  float* const* weights;
  bf16* slopes;
};

template <class Block>
auto all_kept(const Block* blocks, std::int64_t count, std::int64_t rows, Held held) {
  std::vector<decltype(next_kept(*blocks, rows, held))> found;
  for (std::int64_t b = 0; b < count; ++b) found.push_back(next_kept(blocks[b], rows, held));
  return found;
}

// Each block after the one before it; f(block, group, what the block keeps) computes some texts.
template <class Block, class F>
void forward_blocks(const Block* blocks, std::int64_t count, const Batch& batch, const Held& held, F&& f) {
  auto kept = all_kept(blocks, count, batch.rows, held);
#pragma omp parallel num_threads(static_cast<int>(batch.threads))
  for (std::int64_t b = 0; b < count; ++b)
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t share = 0; share < batch.shares; ++share)
      for (std::int64_t g = batch.of_share[share]; g < batch.of_share[share + 1]; ++g)
        f(blocks[b], batch.groups[g], kept[b]);
}

// Where the sum of 16 numbers of B transposed, from number `at` on of all that a map sums up of it (rank × out), goes
// in B itself, the parts' (columns × rank) one after another, each where its first row of the transpose was; null: a
// part has nothing there.
struct Turned {
  float* to;
  std::int64_t step;
};

inline Turned turned(const Map& map, std::int64_t at, float* total) {
  const std::int64_t row = at / map.out, column = at % map.out;
  for (std::int64_t j = 0; j < map.parts; ++j) {
    const std::int64_t* part = map.part + 5 * j;
    if (row >= part[2] && row < part[2] + part[3] && column >= part[0] && column < part[0] + part[1])
      return {total + part[2] * map.out + (column - part[0]) * part[3] + row - part[2], part[3]};
  }
  return {nullptr, 0};
}

// `total` is the sum of the shares' rows of `sums` in order, times `factors`, and B is no longer transposed; size: a
// multiple of 16.
template <class Block>
inline void sum_shares(const Block& block, const Batch& batch, const float* sums, const float* factors, float* total) {
  const auto maps = maps_of(block);
#pragma omp for schedule(static)
  for (std::int64_t i = 0; i < block.size; i += 16) {
    __m512 sum = load(sums + i);
    for (std::int64_t share = 1; share < batch.shares; ++share)
      sum = _mm512_add_ps(sum, load(sums + share * block.size + i));
    sum = _mm512_mul_ps(sum, load(factors + i));
    auto of_b = std::find_if(maps.begin(), maps.end(), [&](const Map* map) {
      return map->at_b >= 0 && i >= map->at_b && i < map->at_b + map->rank * map->out;
    });
    if (of_b == maps.end()) {
      store(total + i, sum);
      continue;
    }
    float all[16];
    store(all, sum);
    Turned to = turned(**of_b, i - (*of_b)->at_b, total + (*of_b)->at_b);
    for (int k = 0; to.to && k < 16; ++k) to.to[k * to.step] = all[k];
  }
}

// to (out × in, fp32) = dyᵀ x over the rows, by all threads; `whole`: room for pairs of rows of x.
inline void weight_slope(const bf16* dy, const bf16* x, std::int64_t rows, std::int64_t out, std::int64_t in,
                         std::int32_t* whole, float* to) {
  const int n = static_cast<int>(rows), inputs = static_cast<int>(in);
  const std::int64_t half = (rows + 1) / 2;
  constexpr int SOME = 16 * ROWS;
#pragma omp for schedule(static)
  for (std::int64_t c0 = 0; c0 < in; c0 += PANEL) rows_as_pairs(x + c0, in, n, PANEL, whole + c0 * half);
#pragma omp for schedule(dynamic, 1)
  for (std::int64_t o0 = 0; o0 < out; o0 += SOME) {
    int o1 = static_cast<int>(std::min<std::int64_t>(out, o0 + SOME));
    std::int32_t* left = room(own_room().pairs, static_cast<std::size_t>(half) * (o1 - o0));
    pair_blocks(dy, out, n, static_cast<int>(o0), o1, left);
    weight_gradient(n, left, whole, static_cast<int>(o0), o1, inputs, to);
  }
}

template <class Block>
Slopes next_slopes(const Block& block, std::int64_t rows, float* const* weights, bf16* from) {
  const auto maps = maps_of(block);
  Slopes found{};
  for (int j = 0; j < 4; ++j)
    if (weights[j]) found.of_map[j] = taken(from, rows * maps[j]->out);
  if (weights[3]) found.inner = taken(from, rows * maps[3]->in);
  return found;
}

// From the last block to the first; f(block, group, kept, slopes, its share's sums, whether the input's gradient is
// wanted) computes some texts.
template <class Block, class F>
void backward_blocks(const Block* blocks, std::int64_t count, const Batch& batch, const Held& held, const Grown& grown,
                     bool wants_input, F&& f) {
  auto kept = all_kept(blocks, count, batch.rows, held);
  std::int64_t before = 0, widest = 0;
  for (std::int64_t b = 0; b < count; ++b) {
    before += blocks[b].size;
    for (const Map* map : maps_of(blocks[b])) widest = std::max(widest, map->in);
  }
  std::int32_t* whole = room(own_room().whole, static_cast<std::size_t>((batch.rows + 1) / 2) * widest);
#pragma omp parallel num_threads(static_cast<int>(batch.threads)) firstprivate(before)
  for (std::int64_t b = count - 1; b >= 0; --b) {
    const Block& block = blocks[b];
    float* const* weights = grown.weights + 4 * b;
    const Slopes slopes = next_slopes(block, batch.rows, weights, grown.slopes);
    before -= block.size;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t share = 0; share < batch.shares; ++share) {
      float* own = grown.sums + share * block.size;
      std::memset(own, 0, sizeof(float) * block.size);
      for (std::int64_t g = batch.of_share[share]; g < batch.of_share[share + 1]; ++g)
        f(block, batch.groups[g], kept[b], slopes, own, b > 0 || wants_input);
    }
    sum_shares(block, batch, grown.sums, grown.factors + before, grown.total + before);
    const auto given = given_to_maps(kept[b], slopes);
    const auto maps = maps_of(block);
    for (int j = 0; j < 4; ++j)
      if (weights[j])
        weight_slope(slopes.of_map[j], given[j], batch.rows, maps[j]->out, maps[j]->in, whole, weights[j]);
  }
}
