// Weights into the layouts of the products, and their gradients; work that threads share output by output.

#include <omp.h>

#include "maps.h"

// `outputs` rows of a weight (fp32, `in` numbers each) that are the outputs from `first` on of a map.
struct Weight {
  const float* numbers;
  std::int64_t outputs, first, in, out;
  bf16 *forth, *back;
};

extern "C" {

void pack_weights(const Weight* weights, std::int64_t count, std::int64_t threads) {
  std::int64_t panels = 0;
  for (std::int64_t i = 0; i < count; ++i) panels += weights[i].outputs / PANEL;
#pragma omp parallel for schedule(dynamic, 2) num_threads(static_cast<int>(threads))
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    std::int64_t at = panel;
    const Weight* weight = weights;
    for (; at >= weight->outputs / PANEL; ++weight) at -= weight->outputs / PANEL;
    pack_outputs(weight->numbers + at * PANEL * weight->in, weight->in, weight->out, weight->first + at * PANEL,
                 weight->forth, weight->back, own_room());
  }
}

void pack_low_rank(const Map* const* maps, std::int64_t count, std::int64_t threads) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(threads))
  for (std::int64_t i = 0; i < count; ++i) pack_update(*maps[i]);
}

// y (rows × out, bf16) = x Wᵀ, nothing else: how fast a product is alone.
void plain_product(const bf16* x, std::int64_t rows, std::int64_t in, const bf16* forth, std::int64_t out, bf16* y,
                   std::int64_t threads) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(threads))
  for (std::int64_t r0 = 0; r0 < rows; r0 += TILE) {
    int some = static_cast<int>(std::min<std::int64_t>(TILE, rows - r0));
    bf16* to = y + r0 * out;
    product(some, x + r0 * in, in, static_cast<int>(in), forth, static_cast<int>(out), Update{},
            [&](int r, int c0, __m512* sums) {
              for (int j = 0; j < 4; ++j) store(to + r * out + c0 + 16 * j, sums[j]);
            });
  }
}

// to (out × in, fp32) = dyᵀ x over `rows`.
void weight_slope(const bf16* dy, const bf16* x, std::int64_t rows, std::int64_t out, std::int64_t in, float* to,
                  std::int64_t threads) {
  static thread_local std::vector<std::int32_t> pairs;
  const int n = static_cast<int>(rows), inputs = static_cast<int>(in);
  const std::int64_t half = (rows + 1) / 2;
  std::int32_t* right = room(pairs, static_cast<std::size_t>(half) * in);
  constexpr int SOME = 16 * ROWS;
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
#pragma omp for schedule(static)
    for (std::int64_t c0 = 0; c0 < in; c0 += PANEL) rows_as_pairs(x + c0, in, n, PANEL, right + c0 * half);
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t o0 = 0; o0 < out; o0 += SOME) {
      int o1 = static_cast<int>(std::min<std::int64_t>(out, o0 + SOME));
      std::int32_t* left = room(own_room().pairs, static_cast<std::size_t>(half) * (o1 - o0));
      pair_blocks(dy, out, n, static_cast<int>(o0), o1, left);
      weight_gradient(n, left, right, static_cast<int>(o0), o1, inputs, to);
    }
  }
}
}
