// How threads share a batch, and what both kinds of block have in common. Shares are fixed, whichever thread takes
// them, so that sums over rows do not depend on the number of threads.
#pragma once

#include <omp.h>

#include "maps.h"

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

template <class F>
void each_group(const Batch& batch, F&& f) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(batch.threads))
  for (std::int64_t share = 0; share < batch.shares; ++share)
    for (std::int64_t g = batch.of_share[share]; g < batch.of_share[share + 1]; ++g) f(batch.groups[g]);
}

// Each share sums into a row of `sums` (shares × size, size a multiple of 16); `total` is the sum of the rows in order,
// times `factors`.
template <class F>
void each_group_summed(const Batch& batch, float* sums, std::int64_t size, const float* factors, float* total, F&& f) {
#pragma omp parallel num_threads(static_cast<int>(batch.threads))
  {
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t share = 0; share < batch.shares; ++share) {
      float* own = sums + share * size;
      std::memset(own, 0, sizeof(float) * size);
      for (std::int64_t g = batch.of_share[share]; g < batch.of_share[share + 1]; ++g) f(batch.groups[g], own);
    }
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < size; i += 16) {
      __m512 sum = load(sums + i);
      for (std::int64_t share = 1; share < batch.shares; ++share)
        sum = _mm512_add_ps(sum, load(sums + share * size + i));
      store(total + i, _mm512_mul_ps(sum, load(factors + i)));
    }
  }
}
