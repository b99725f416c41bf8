// A linear map with a low-rank update over some rows, forward and back, and the gradients of what learns.
#pragma once

#include "attention.h"

// Layouts are those of products.h; `part` has five numbers for each of the maps that were joined: first column,
// columns, first number of `low`, how many (even), where its strips begin. Where nothing is summed, the place is −1.
struct Map {
  std::int64_t in, out;
  const bf16 *forth, *back;
  const float* bias;
  std::int64_t rank, stride;  // numbers of `low`, and from one row of it to the next
  const bf16 *a, *b;          // rank × in and out × stride
  bf16 *a_strips, *b_panels, *b_strips, *a_panels;
  const std::int64_t *forth_panels, *back_panels;
  std::int64_t parts;
  const std::int64_t* part;
  std::int64_t at_a, at_b, at_bias;
  double dropped;  // share of the update's inputs
};

// For one pass over a batch.
inline Drop drop_of(const Map& map, std::int64_t seed) {
  if (!map.rank || map.dropped <= 0) return {};
  return {static_cast<std::uint64_t>(seed), static_cast<int>(std::lround(map.dropped * 65536)),
          static_cast<float>(1 / (1 - map.dropped))};
}

// Texts that one thread computes together: rows [first, last) of all, texts [text, end).
struct Group {
  std::int64_t first, last, text, end;
};

struct Batch {
  std::int64_t rows, shares, threads;
  const std::int64_t* of_share;  // shares + 1: where each one's groups begin
  const Group* groups;
  const std::int64_t* starts;  // texts + 1: first row of each
};

struct Room {
  AttentionRoom attention;
  std::vector<std::int32_t> pairs, whole;
  std::vector<bf16> xs, qkv, mixed, ys, inner, low, slope, wide_slope, other, thinned;
  std::vector<float> out, stream;
};

inline Room& own_room() {
  static thread_local Room room_of_thread;
  return room_of_thread;
}

// 64 outputs of a weight in fp32 (each `in` numbers), from output `first` of the map on → both layouts.
inline void pack_outputs(const float* w, std::int64_t in, std::int64_t out, std::int64_t first, bf16* forth, bf16* back,
                         Room& at) {
  bf16* rounded = room(at.other, static_cast<std::size_t>(PANEL) * in);
  for (std::int64_t i = 0; i < PANEL * in; i += 16) store(rounded + i, load(w + i));
  pack(rounded, PANEL, static_cast<int>(in), forth + first * in);
  if (!back) return;
  for (std::int64_t c0 = 0; c0 < in; c0 += PANEL)
    rows_as_pairs(rounded + c0, in, PANEL, PANEL, reinterpret_cast<std::int32_t*>(back + c0 * out) + first / 2 * PANEL);
}

// After `a` or `b` changed.
inline void pack_update(const Map& map) {
  pack_strips(map.a, map.in, 1, static_cast<int>(map.rank), static_cast<int>(map.in), map.a_strips);
  pack_transposed(map.a, map.in, static_cast<int>(map.in), static_cast<int>(map.rank), map.a_panels);
  for (int c0 = 0; c0 < map.out; c0 += PANEL) {
    const std::int64_t* of = map.forth_panels + 3 * (c0 / PANEL);
    auto* to = reinterpret_cast<std::int32_t*>(map.b_panels + of[2]);
    pairs_as_columns(map.b + c0 * map.stride + of[0], map.stride, PANEL, PANEL, static_cast<int>(of[1] / 2), to);
  }
  for (int j = 0; j < map.parts; ++j) {
    const std::int64_t* part = map.part + 5 * j;
    pack_strips(map.b + part[0] * map.stride + part[2], 1, map.stride, static_cast<int>(part[3]),
                static_cast<int>(part[1]), map.b_strips + part[4]);
  }
}

// x as the update gets it.
inline const bf16* thinned(const Map& map, const Drop& drop, std::int64_t first, int rows, const bf16* x, Room& at) {
  if (!drop.least) return x;
  bf16* found = room(at.thinned, static_cast<std::size_t>(rows) * map.in);
  thin(drop, first, rows, x, map.in, found);
  return found;
}

// finish(row, first column, four registers) gets x Wᵀ + bias and the update; `low` (rows × stride) is written. `first`:
// the number of the first row in the batch.
template <class Finish>
inline void forth(const Map& map, const Drop& drop, std::int64_t first, int rows, const bf16* x, bf16* low, Room& at,
                  Finish&& finish) {
  Update update;
  if (map.rank) {
    const bf16* given = thinned(map, drop, first, rows, x, at);
    narrow_product(rows, given, map.in, static_cast<int>(map.in), map.a_strips, static_cast<int>(map.rank), drop.factor,
                   low, map.stride);
    update.low = low, update.stride = map.stride, update.panels = map.b_panels, update.of_panel = map.forth_panels;
  }
  const float* bias = map.bias;
  product(rows, x, map.in, static_cast<int>(map.in), map.forth, static_cast<int>(map.out), update,
          [&](int r, int c0, __m512* sums) {
            if (bias)
              for (int j = 0; j < 4; ++j) sums[j] = _mm512_add_ps(sums[j], load(bias + c0 + 16 * j));
            finish(r, c0, sums);
          });
}

// The gradient of the update's rows.
inline const bf16* low_back(const Map& map, const Drop& drop, int rows, const bf16* dy, Room& at) {
  if (!map.rank) return nullptr;
  bf16* dlow = room(at.slope, static_cast<std::size_t>(rows) * map.stride);
  for (int j = 0; j < map.parts; ++j) {
    const std::int64_t* part = map.part + 5 * j;
    if (part[3])
      narrow_product(rows, dy + part[0], map.out, static_cast<int>(part[1]), map.b_strips + part[4],
                     static_cast<int>(part[3]), drop.factor, dlow + part[2], map.stride);
  }
  return dlow;
}

// finish(row, first column, four registers) gets dy W and the update's part.
template <class Finish>
inline void back(const Map& map, const Drop& drop, std::int64_t first, int rows, const bf16* dy, const bf16* dlow,
                 Finish&& finish) {
  Update update;
  if (map.rank)
    update.low = dlow, update.stride = map.stride, update.panels = map.a_panels, update.of_panel = map.back_panels;
  if (drop.least) update.drop = &drop, update.first = first;
  product(rows, dy, map.out, static_cast<int>(map.out), map.back, static_cast<int>(map.in), update, finish);
}

// Gradients of the update and the bias, added to `sums`: of A rank × in, of B transposed rank × out.
inline void gradients(const Map& map, const Drop& drop, std::int64_t first, int rows, const bf16* x, const bf16* low,
                      const bf16* dy, const bf16* dlow, float* sums, Room& at) {
  if (map.at_bias >= 0)
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < map.out; c += 16) {
        float* place = sums + map.at_bias + c;
        store(place, _mm512_add_ps(load(place), load(dy + r * map.out + c)));
      }
  if (map.at_a < 0) return;
  std::int32_t* pairs = room(at.pairs, static_cast<std::size_t>((rows + 1) / 2) * map.stride);
  rows_as_pairs(dlow, map.stride, rows, static_cast<int>(map.stride), pairs);
  const bf16* given = thinned(map, drop, first, rows, x, at);
  sum_over_rows(rows, pairs, map.stride, static_cast<int>(map.rank), given, map.in, static_cast<int>(map.in),
                sums + map.at_a, map.in);
  rows_as_pairs(low, map.stride, rows, static_cast<int>(map.stride), pairs);
  for (int j = 0; j < map.parts; ++j) {
    const std::int64_t* part = map.part + 5 * j;
    if (part[3])
      sum_over_rows(rows, pairs + part[2], map.stride, static_cast<int>(part[3]), dy + part[0], map.out,
                    static_cast<int>(part[1]), sums + map.at_b + part[2] * map.out + part[0], map.out);
  }
}
