// Products of bf16 matrices, summed in fp32: rows times a weight that was laid out beforehand, low-rank updates in the
// same registers, and sums over rows (gradients of what has few rows). The order of a sum depends on its length alone,
// so that a row's result does not depend on which rows are computed beside it.
#pragma once

#include <algorithm>

#include "vector.h"

constexpr int PANEL = 64;  // columns that are computed at once
constexpr int ROWS = 6;    // rows at once: 6 × 4 registers of sums
constexpr int TILE = 96;   // rows that go through all panels before the next ones

// w (columns × depth, its rows one after another) → panels of 64 columns; in each, pairs along the depth stand
// together.
inline void pack(const bf16* w, int columns, int depth, bf16* to) {
  for (int c0 = 0; c0 < columns; c0 += PANEL)
    pairs_as_columns(w + static_cast<std::int64_t>(c0) * depth, depth, PANEL, PANEL, depth / 2,
                     reinterpret_cast<std::int32_t*>(to + static_cast<std::int64_t>(c0) * depth));
}

// The same of the transpose: w is depth × columns, `stride` numbers from one row to the next.
inline void pack_transposed(const bf16* w, std::int64_t stride, int columns, int depth, bf16* to) {
  for (int c0 = 0; c0 < columns; c0 += PANEL)
    rows_as_pairs(w + c0, stride, depth, PANEL,
                  reinterpret_cast<std::int32_t*>(to + static_cast<std::int64_t>(c0) * depth));
}

// Strips of 16 columns, for few columns; those past the last are 0. Number (c, p) of w stands at c · row + p · column.
inline void pack_strips(const bf16* w, std::int64_t row, std::int64_t column, int columns, int depth, bf16* to) {
  for (int c0 = 0; c0 < columns; c0 += 16)
    for (int p = 0; p < depth / 2; ++p)
      for (int c = c0; c < c0 + 16; ++c) {
        bool there = c < columns;
        *to++ = there ? w[c * row + 2 * p * column] : 0;
        *to++ = there ? w[c * row + (2 * p + 1) * column] : 0;
      }
}

template <int M, int V>
using Sums = __m512[M][V];

template <int M, int V>
inline __attribute__((always_inline)) void clear(Sums<M, V>& sums) {
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < V; ++j) sums[i][j] = _mm512_setzero_ps();
}

// sums += M rows of `a` times V registers of columns; both go along the depth in pairs.
template <int M, int V>
inline __attribute__((always_inline)) void multiply(const bf16* a, std::int64_t stride, const void* b, int pairs,
                                                    Sums<M, V>& sums) {
  const char* columns = static_cast<const char*>(b);
  for (int p = 0; p < pairs; ++p, columns += 64 * V) {
    __m512bh right[V];
    for (int j = 0; j < V; ++j) right[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(columns + 64 * j));
    for (int i = 0; i < M; ++i) {
      __m512bh left = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair(a + i * stride + 2 * p)));
      for (int j = 0; j < V; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], left, right[j]);
    }
  }
}

// Call f with the number of rows as a compile-time number.
template <int M, class F>
inline __attribute__((always_inline)) void for_rows(int rows, F&& f) {
  if constexpr (M > 0) {
    if (rows == M)
      f(std::integral_constant<int, M>{});
    else
      for_rows<M - 1>(rows, f);
  }
}

// Gradients of a weight: to (outputs × inputs, fp32) = dyᵀ x over the rows. `dy` and `x` stand in pairs of rows: `left`
// has blocks of ROWS outputs, `right` panels of 64 inputs. Outputs [o0, o1) alone, so that threads can share the work.
inline void pair_blocks(const bf16* dy, std::int64_t stride, int rows, int o0, int o1, std::int32_t* left) {
  for (int o = o0; o < o1; o += ROWS) {
    int some = std::min(ROWS, o1 - o);
    for (int j = 0; 2 * j < rows; ++j) {
      const bf16* upper = dy + static_cast<std::int64_t>(2 * j) * stride + o;
      bool last = 2 * j + 1 >= rows;
      for (int i = 0; i < some; ++i) {
        std::uint32_t high = last ? 0u : upper[stride + i];
        *left++ = static_cast<std::int32_t>(upper[i] | high << 16);
      }
    }
  }
}

inline void weight_gradient(int rows, const std::int32_t* left, const std::int32_t* right, int o0, int o1, int inputs,
                            float* to) {
  const int pairs = (rows + 1) / 2;
  for (int c0 = 0; c0 < inputs; c0 += PANEL) {
    const std::int32_t* panel = right + static_cast<std::int64_t>(c0) * pairs;
    const std::int32_t* block = left;
    for (int o = o0; o < o1; o += ROWS)
      for_rows<ROWS>(std::min(ROWS, o1 - o), [&](auto m) {
        constexpr int M = decltype(m)::value;
        Sums<M, 4> sums;
        clear<M, 4>(sums);
        for (int j = 0; j < pairs; ++j) {
          __m512bh columns[4];
          for (int v = 0; v < 4; ++v)
            columns[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + 64 * j + 16 * v));
          for (int i = 0; i < M; ++i) {
            __m512bh one = reinterpret_cast<__m512bh>(_mm512_set1_epi32(block[M * j + i]));
            for (int v = 0; v < 4; ++v) sums[i][v] = _mm512_dpbf16_ps(sums[i][v], one, columns[v]);
          }
        }
        block += M * pairs;
        for (int i = 0; i < M; ++i)
          for (int v = 0; v < 4; ++v) store(to + static_cast<std::int64_t>(o + i) * inputs + c0 + 16 * v, sums[i][v]);
      });
  }
}

// Which inputs stay: a number for each row and column, from a seed alone, so that no mask is kept. 16 bits each out of
// MurmurHash3's finaliser (Appleby 2011); `least` of 65,536 is dropped, what stays is multiplied by `factor` elsewhere.
struct Drop {
  std::uint64_t seed = 0;
  int least = 0;  // 0: nothing is dropped
  float factor = 1.0f;
};

inline __mmask32 stays(const Drop& drop, std::int64_t row, std::int64_t columns, int c0) {
  auto number = static_cast<std::uint32_t>(row * (columns / 2) + c0 / 2);
  __m512i x = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(number)),
                               _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  x = _mm512_xor_si512(x, _mm512_set1_epi32(static_cast<int>(drop.seed)));
  x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)),
                         _mm512_set1_epi32(static_cast<int>(0x85ebca6bu)));
  x = _mm512_add_epi32(x, _mm512_set1_epi32(static_cast<int>(drop.seed >> 32)));
  x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 13)),
                         _mm512_set1_epi32(static_cast<int>(0xc2b2ae35u)));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  return _mm512_cmpge_epu16_mask(x, _mm512_set1_epi16(static_cast<short>(drop.least)));
}

// Rows of x (the first of them is number `first` of the batch) with zeros where they are dropped.
inline void thin(const Drop& drop, std::int64_t first, int rows, const bf16* x, std::int64_t columns, bf16* to) {
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; c += 32)
      _mm512_storeu_si512(to + r * columns + c,
                          _mm512_maskz_loadu_epi16(stays(drop, first + r, columns, c), x + r * columns + c));
}

// What a low-rank update adds in the same registers: rows `low` (n × stride) times panels of `b`; where `drop` is
// there, only to the columns that stay.
struct Update {
  const Drop* drop = nullptr;
  std::int64_t first = 0;
  const bf16* low = nullptr;
  std::int64_t stride = 0;
  const bf16* panels = nullptr;
  const std::int64_t* of_panel = nullptr;  // for each panel: first number of `low`, how many, where in `panels`
};

// For each row and panel: finish(row, first column, four registers of sums).
template <class Finish>
inline void product(int rows, const bf16* x, std::int64_t stride, int depth, const bf16* panels, int columns,
                    const Update& update, Finish&& finish) {
  for (int t0 = 0; t0 < rows; t0 += TILE) {
    int t1 = std::min(rows, t0 + TILE);
    for (int c0 = 0; c0 < columns; c0 += PANEL) {
      const bf16* panel = panels + static_cast<std::int64_t>(c0) * depth;
      const std::int64_t* of = update.of_panel ? update.of_panel + 3 * (c0 / PANEL) : nullptr;
      for (int r = t0; r < t1; r += ROWS)
        for_rows<ROWS>(std::min(ROWS, t1 - r), [&](auto m) {
          constexpr int M = decltype(m)::value;
          Sums<M, 4> sums;
          clear<M, 4>(sums);
          multiply<M, 4>(x + r * stride, stride, panel, depth / 2, sums);
          if (of && !update.drop) {
            multiply<M, 4>(update.low + r * update.stride + of[0], update.stride, update.panels + of[2],
                           static_cast<int>(of[1] / 2), sums);
          } else if (of) {
            Sums<M, 4> more;
            clear<M, 4>(more);
            multiply<M, 4>(update.low + r * update.stride + of[0], update.stride, update.panels + of[2],
                           static_cast<int>(of[1] / 2), more);
            for (int i = 0; i < M; ++i)
              for (int half = 0; half < 2; ++half) {
                __mmask32 there = stays(*update.drop, update.first + r + i, columns, c0 + 32 * half);
                for (int j = 2 * half; j < 2 * half + 2; ++j, there >>= 16)
                  sums[i][j] = _mm512_mask_add_ps(sums[i][j], static_cast<__mmask16>(there), sums[i][j], more[i][j]);
              }
          }
          for (int i = 0; i < M; ++i) finish(r + i, c0, sums[i]);
        });
    }
  }
}

// M rows times the first eight columns of a strip; the order of sums is that of `multiply`.
template <int M>
inline __attribute__((always_inline)) void multiply_eight(const bf16* a, std::int64_t stride, const bf16* strip,
                                                          int pairs, __m256 (&sums)[M]) {
  for (int i = 0; i < M; ++i) sums[i] = _mm256_setzero_ps();
  for (int p = 0; p < pairs; ++p, strip += 32) {
    auto right = reinterpret_cast<__m256bh>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(strip)));
    for (int i = 0; i < M; ++i) {
      auto left = reinterpret_cast<__m256bh>(_mm256_set1_epi32(pair(a + i * stride + 2 * p)));
      sums[i] = _mm256_dpbf16_ps(sums[i], left, right);
    }
  }
}

// Few columns: rows times strips of 16, times `factor`, stored in bf16; columns past the last are not.
inline void narrow_product(int rows, const bf16* x, std::int64_t stride, int depth, const bf16* strips, int columns,
                           float factor, bf16* to, std::int64_t to_stride) {
  for (int c0 = 0; c0 < columns; c0 += 16) {
    int left = std::min(16, columns - c0);
    __mmask16 there = static_cast<__mmask16>((1u << left) - 1);
    const bf16* strip = strips + static_cast<std::int64_t>(c0) * depth;
    for (int r = 0; r < rows; r += 12)
      for_rows<12>(std::min(12, rows - r), [&](auto m) {
        constexpr int M = decltype(m)::value;
        bf16* place = to + r * to_stride + c0;
        if (left <= 8) {
          __m256 sums[M];
          multiply_eight<M>(x + r * stride, stride, strip, depth / 2, sums);
          for (int i = 0; i < M; ++i) {
            auto found = _mm256_cvtneps_pbh(_mm256_mul_ps(sums[i], _mm256_set1_ps(factor)));
            _mm_mask_storeu_epi16(place + i * to_stride, static_cast<__mmask8>(there),
                                  reinterpret_cast<__m128i>(found));
          }
          return;
        }
        Sums<M, 1> sums;
        clear<M, 1>(sums);
        multiply<M, 1>(x + r * stride, stride, strip, depth / 2, sums);
        for (int i = 0; i < M; ++i)
          _mm256_mask_storeu_epi16(place + i * to_stride, there,
                                   narrow(_mm512_mul_ps(sums[i][0], _mm512_set1_ps(factor))));
      });
  }
}

// to (few × columns, fp32) += fewᵀ x over the rows; `pairs_of` are the few columns' rows in pairs (rows_as_pairs with
// `wide` columns). columns: a multiple of 16.
inline void sum_over_rows(int rows, const std::int32_t* pairs_of, std::int64_t wide, int few, const bf16* x,
                          std::int64_t stride, int columns, float* to, std::int64_t to_stride) {
  const __m512i evens = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i odds = _mm512_set_epi16(63, 31, 62, 30, 61, 29, 60, 28, 59, 27, 58, 26, 57, 25, 56, 24, 55, 23, 54, 22,
                                        53, 21, 52, 20, 51, 19, 50, 18, 49, 17, 48, 16);
  for (int c0 = 0; c0 < columns; c0 += 32) {
    __mmask32 there = columns - c0 >= 32 ? 0xffffffffu : 0xffffu;
    for (int f0 = 0; f0 < few; f0 += 8)
      for_rows<8>(std::min(8, few - f0), [&](auto m) {
        constexpr int M = decltype(m)::value;
        Sums<M, 2> sums;
        clear<M, 2>(sums);
        for (int j = 0; 2 * j < rows; ++j) {
          const bf16* upper = x + static_cast<std::int64_t>(2 * j) * stride + c0;
          __m512i first = _mm512_maskz_loadu_epi16(there, upper);
          __m512i second = 2 * j + 1 < rows ? _mm512_maskz_loadu_epi16(there, upper + stride) : _mm512_setzero_si512();
          __m512bh left = reinterpret_cast<__m512bh>(_mm512_permutex2var_epi16(first, evens, second));
          __m512bh right = reinterpret_cast<__m512bh>(_mm512_permutex2var_epi16(first, odds, second));
          for (int i = 0; i < M; ++i) {
            __m512bh one = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pairs_of[j * wide + f0 + i]));
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], one, left);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], one, right);
          }
        }
        for (int i = 0; i < M; ++i) {
          float* row = to + (f0 + i) * to_stride + c0;
          store(row, _mm512_add_ps(load(row), sums[i][0]));
          if (there != 0xffffu) store(row + 16, _mm512_add_ps(load(row + 16), sums[i][1]));
        }
      });
  }
}
