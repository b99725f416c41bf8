// Softmax attention of one text, head by head, straight on the rows that the joined map of queries, keys and values
// gave. The shares are not kept: the way back computes them again from each row's logarithm of its sum (Dao et al.
// 2022, https://arxiv.org/abs/2205.14135).
#pragma once

#include <cmath>
#include <vector>

#include "products.h"

struct Heads {
  int queries, keys, width;  // heads of queries, of keys and values; features of each
  bool causal;
  std::int64_t stride() const { return static_cast<std::int64_t>(queries + 2 * keys) * width; }
};

inline int up_to(int number, int step) { return (number + step - 1) / step * step; }

template <class T>
T* room(std::vector<T>& where, std::size_t count) {
  if (where.size() < count) where.resize(count);
  return where.data();
}

struct AttentionRoom {
  std::vector<std::int32_t> columns, pairs, more_columns, more_pairs, key_pairs;
  std::vector<float> scores, sums, dk, dv, dq, weights;
  std::vector<bf16> shares, slopes;
};

// V registers of columns of `b` (columns × pairs as dwords, `wide` columns) for M rows.
template <int M, int V>
inline __attribute__((always_inline)) void multiply_wide(const bf16* a, std::int64_t stride, const std::int32_t* b,
                                                         std::int64_t wide, int pairs, Sums<M, V>& sums) {
  for (int p = 0; p < pairs; ++p) {
    __m512bh right[V];
    for (int j = 0; j < V; ++j) right[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + p * wide + 16 * j));
    for (int i = 0; i < M; ++i) {
      __m512bh left = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair(a + i * stride + 2 * p)));
      for (int j = 0; j < V; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], left, right[j]);
    }
  }
}

// M rows of products with columns [first, last) of `wide` (multiples of 16): finish(row, first of 16 columns, sums).
template <int M, class Finish>
inline __attribute__((always_inline)) void wide_rows(const bf16* a, std::int64_t stride, const std::int32_t* b,
                                                     int first, int last, int wide, int pairs, Finish&& finish) {
  auto some = [&](auto v, int c0) {
    constexpr int V = decltype(v)::value;
    Sums<M, V> sums;
    clear<M, V>(sums);
    multiply_wide<M, V>(a, stride, b + c0, wide, pairs, sums);
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j) finish(i, c0 + 16 * j, sums[i][j]);
  };
  int c0 = first;
  for (; c0 + 64 <= last; c0 += 64) some(std::integral_constant<int, 4>{}, c0);
  for (; c0 + 32 <= last; c0 += 32) some(std::integral_constant<int, 2>{}, c0);
  for (; c0 < last; c0 += 16) some(std::integral_constant<int, 1>{}, c0);
}

// M rows (bf16, `wide` of them used) times `pairs_of` (pairs along the depth, d columns) → fp32 M × d, added or set.
template <int M>
inline void few_columns(const bf16* a, std::int64_t stride, const std::int32_t* pairs_of, int d, int pairs, bool add,
                        float* to, std::int64_t to_stride) {
  for (int c0 = 0; c0 < d; c0 += 32) {
    auto some = [&](auto v) {
      constexpr int V = decltype(v)::value;
      Sums<M, V> sums;
      clear<M, V>(sums);
      multiply_wide<M, V>(a, stride, pairs_of + c0, d, pairs, sums);
      for (int i = 0; i < M; ++i)
        for (int j = 0; j < V; ++j) {
          float* place = to + i * to_stride + c0 + 16 * j;
          store(place, add ? _mm512_add_ps(load(place), sums[i][j]) : sums[i][j]);
        }
    };
    if (d - c0 >= 32)
      some(std::integral_constant<int, 2>{});
    else
      some(std::integral_constant<int, 1>{});
  }
}

constexpr float LOG2_E = 1.44269504f;  // scores and the logarithms of their sums are to the base 2

// One text of `tokens` rows: mixed (tokens × queries·width), lse (tokens × queries) where it is wanted.
inline void attend(int tokens, const Heads& heads, const bf16* qkv, bf16* mixed, float* lse, AttentionRoom& at) {
  const int d = heads.width, wide = up_to(tokens, 16), group = heads.queries / heads.keys;
  const std::int64_t stride = heads.stride(), mixed_stride = static_cast<std::int64_t>(heads.queries) * d;
  const __m512 factor = _mm512_set1_ps(LOG2_E / std::sqrt(static_cast<float>(d)));
  std::int32_t* k_columns = room(at.columns, static_cast<std::size_t>(wide) * d / 2);
  std::int32_t* v_pairs = room(at.pairs, static_cast<std::size_t>(wide) * d / 2 + d);
  float* scores = room(at.scores, static_cast<std::size_t>(ROWS) * wide);
  float* sums = room(at.sums, static_cast<std::size_t>(ROWS) * d);
  bf16* shares = room(at.shares, static_cast<std::size_t>(ROWS) * wide);
  for (int kv = 0; kv < heads.keys; ++kv) {
    const bf16* k = qkv + static_cast<std::int64_t>(heads.queries + kv) * d;
    const bf16* v = qkv + static_cast<std::int64_t>(heads.queries + heads.keys + kv) * d;
    pairs_as_columns(k, stride, tokens, wide, d / 2, k_columns);
    rows_as_pairs(v, stride, tokens, d, v_pairs);
    for (int h = kv * group; h < (kv + 1) * group; ++h)
      for (int r = 0; r < tokens; r += ROWS)
        for_rows<ROWS>(std::min(ROWS, tokens - r), [&](auto m) {
          constexpr int M = decltype(m)::value;
          int seen = heads.causal ? r + M : tokens;  // what the block's last row sees
          int used = up_to(seen, 16);
          wide_rows<M>(qkv + r * stride + static_cast<std::int64_t>(h) * d, stride, k_columns, 0, used, wide, d / 2,
                       [&](int i, int c, __m512 s) { store(scores + i * wide + c, _mm512_mul_ps(s, factor)); });
          for (int i = 0; i < M; ++i) {
            float* row = scores + i * wide;
            int own = heads.causal ? r + i + 1 : tokens;
            __m512 most = _mm512_set1_ps(-1e30f);
            for (int c = 0; c < own; c += 16) most = _mm512_mask_max_ps(most, first_of(own - c), most, load(row + c));
            float top = _mm512_reduce_max_ps(most);
            __m512 total = _mm512_setzero_ps();
            for (int c = 0; c < used; c += 16) {
              __m512 e =
                  _mm512_maskz_mov_ps(first_of(own - c), exp2_16(_mm512_sub_ps(load(row + c), _mm512_set1_ps(top))));
              total = _mm512_add_ps(total, e);
              store(row + c, e);
            }
            float sum = _mm512_reduce_add_ps(total);
            __m512 share = _mm512_set1_ps(1.0f / sum);
            for (int c = 0; c < used; c += 16) store(shares + i * wide + c, _mm512_mul_ps(load(row + c), share));
            if (lse) lse[static_cast<std::int64_t>(r + i) * heads.queries + h] = top + std::log2(sum);
          }
          few_columns<M>(shares, wide, v_pairs, d, (seen + 1) / 2, false, sums, d);
          for (int i = 0; i < M; ++i)
            for (int c = 0; c < d; c += 16)
              store(mixed + (r + i) * mixed_stride + static_cast<std::int64_t>(h) * d + c, load(sums + i * d + c));
        });
  }
}

// Gradients of queries, keys and values (dqkv, as qkv) from that of what they mixed.
inline void attend_back(int tokens, const Heads& heads, const bf16* qkv, const bf16* mixed, const float* lse,
                        const bf16* dmixed, bf16* dqkv, AttentionRoom& at) {
  const int d = heads.width, wide = up_to(tokens, 16), group = heads.queries / heads.keys;
  const std::int64_t stride = heads.stride(), mixed_stride = static_cast<std::int64_t>(heads.queries) * d;
  const float factor = 1.0f / std::sqrt(static_cast<float>(d));
  const std::size_t half = static_cast<std::size_t>(wide) * d / 2 + d;
  std::int32_t *q_columns = room(at.columns, half), *do_columns = room(at.more_columns, half);
  std::int32_t *q_pairs = room(at.pairs, half), *do_pairs = room(at.more_pairs, half),
               *k_pairs = room(at.key_pairs, half);
  const __m512 times = _mm512_set1_ps(factor), times2 = _mm512_set1_ps(factor * LOG2_E);
  float* offsets = room(at.weights, 2 * static_cast<std::size_t>(wide));
  float* levels = offsets + wide;
  bf16* shares = room(at.shares, static_cast<std::size_t>(ROWS) * wide);
  bf16* ds = room(at.slopes, static_cast<std::size_t>(wide + ROWS) * wide);
  float* dk = room(at.dk, static_cast<std::size_t>(wide) * d);
  float* dv = room(at.dv, static_cast<std::size_t>(wide) * d);
  float* dq = room(at.dq, static_cast<std::size_t>(d) * wide);
  for (int kv = 0; kv < heads.keys; ++kv) {
    const std::int64_t at_k = static_cast<std::int64_t>(heads.queries + kv) * d;
    const std::int64_t at_v = static_cast<std::int64_t>(heads.queries + heads.keys + kv) * d;
    rows_as_pairs(qkv + at_k, stride, tokens, d, k_pairs);
    for (int h = kv * group; h < (kv + 1) * group; ++h) {
      const bf16* q = qkv + static_cast<std::int64_t>(h) * d;
      const bf16* dout = dmixed + static_cast<std::int64_t>(h) * d;
      const bf16* out = mixed + static_cast<std::int64_t>(h) * d;
      pairs_as_columns(q, stride, tokens, wide, d / 2, q_columns);
      pairs_as_columns(dout, mixed_stride, tokens, wide, d / 2, do_columns);
      rows_as_pairs(q, stride, tokens, d, q_pairs);
      rows_as_pairs(dout, mixed_stride, tokens, d, do_pairs);
      for (int t = 0; t < wide; ++t) {
        offsets[t] = 0.0f, levels[t] = 1e30f;  // past the last row: shares of 0
        if (t >= tokens) continue;
        __m512 sum = _mm512_setzero_ps();
        for (int c = 0; c < d; c += 16)
          sum = _mm512_fmadd_ps(load(dout + t * mixed_stride + c), load(out + t * mixed_stride + c), sum);
        offsets[t] = _mm512_reduce_add_ps(sum);
        levels[t] = lse[static_cast<std::int64_t>(t) * heads.queries + h];
      }
      for (int r = 0; r < tokens; r += ROWS)
        for_rows<ROWS>(std::min(ROWS, tokens - r), [&](auto m) {
          constexpr int M = decltype(m)::value;
          int first = heads.causal ? r / 16 * 16 : 0;  // queries before it see none of these keys
          wide_rows<M>(qkv + at_k + r * stride, stride, q_columns, first, wide, wide, d / 2,
                       [&](int i, int c, __m512 s) {
                         __m512 p = exp2_16(_mm512_fmsub_ps(s, times2, load(levels + c)));
                         if (heads.causal) p = _mm512_mask_mov_ps(p, first_of(r + i - c), _mm512_setzero_ps());
                         store(shares + i * wide + c, p);
                       });
          wide_rows<M>(qkv + at_v + r * stride, stride, do_columns, first, wide, wide, d / 2,
                       [&](int i, int c, __m512 s) {
                         __m512 slope = _mm512_mul_ps(load(shares + i * wide + c), _mm512_sub_ps(s, load(offsets + c)));
                         store(ds + static_cast<std::int64_t>(r + i) * wide + c, _mm512_mul_ps(slope, times));
                       });
          if (first)
            for (int i = 0; i < M; ++i) std::memset(ds + static_cast<std::int64_t>(r + i) * wide, 0, 2 * first);
          bool add = h > kv * group;
          int pairs = (tokens + 1) / 2 - first / 2;
          few_columns<M>(shares + first, wide, do_pairs + static_cast<std::int64_t>(first / 2) * d, d, pairs, add,
                         dv + static_cast<std::int64_t>(r) * d, d);
          few_columns<M>(ds + static_cast<std::int64_t>(r) * wide + first, wide,
                         q_pairs + static_cast<std::int64_t>(first / 2) * d, d, pairs, add,
                         dk + static_cast<std::int64_t>(r) * d, d);
        });
      std::memset(dq, 0, sizeof(float) * d * wide);
      sum_over_rows(tokens, k_pairs, d, d, ds, wide, wide, dq, wide);
      for (int t = 0; t < tokens; t += 16)
        for (int c = 0; c < d; c += 16) {
          __m512i block[16];
          for (int i = 0; i < 16; ++i) block[i] = _mm512_loadu_si512(dq + static_cast<std::int64_t>(c + i) * wide + t);
          transpose(block);
          for (int i = 0; i < 16 && t + i < tokens; ++i)
            store(dqkv + (t + i) * stride + static_cast<std::int64_t>(h) * d + c, _mm512_castsi512_ps(block[i]));
        }
    }
    for (int t = 0; t < tokens; ++t)
      for (int c = 0; c < d; c += 16) {
        store(dqkv + t * stride + at_k + c, load(dk + static_cast<std::int64_t>(t) * d + c));
        store(dqkv + t * stride + at_v + c, load(dv + static_cast<std::int64_t>(t) * d + c));
      }
  }
}
