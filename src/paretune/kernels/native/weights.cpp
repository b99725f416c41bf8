// What learns into the layouts of the products; work that threads share output by output.

#include <omp.h>

#include "maps.h"

// `outputs` rows of a weight (fp32, `in` numbers each) that are the outputs from `first` on of a map.
struct Weight {
  const float* numbers;
  std::int64_t outputs, first, in, out;
  bf16 *forth, *back;
};

// A parameter's numbers (rows × columns, fp32, one after another), in fp32 to `wide`, or rounded, times `factor` and
// rounded again to `narrow`; `stride`: from one row there to the next.
struct Copy {
  const float* from;
  float* wide;
  bf16* narrow;
  std::int64_t rows, columns, stride;
  double factor;
};

namespace {

void copy(const Copy& one) {
  const __m512 factor = _mm512_set1_ps(static_cast<float>(one.factor));
  for (std::int64_t r = 0; r < one.rows; ++r)
    for (std::int64_t c = 0; c < one.columns; c += 16) {
      __mmask16 there = first_of(static_cast<int>(std::min<std::int64_t>(16, one.columns - c)));
      __m512 x = _mm512_maskz_loadu_ps(there, one.from + r * one.columns + c);
      if (one.wide)
        _mm512_mask_storeu_ps(one.wide + r * one.stride + c, there, x);
      else
        _mm256_mask_storeu_epi16(one.narrow + r * one.stride + c, there, narrow(_mm512_mul_ps(rounded(x), factor)));
    }
}

}  // namespace

extern "C" {

// What learnt: first the copies, then weights and updates, of which copies may be a part.
void refresh(const Copy* copies, std::int64_t some, const Weight* weights, std::int64_t count, const Map* const* maps,
             std::int64_t updated, std::int64_t threads) {
  std::int64_t panels = 0;
  for (std::int64_t i = 0; i < count; ++i) panels += weights[i].outputs / PANEL;
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < some; ++i) copy(copies[i]);
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < updated; ++i) pack_update(*maps[i]);
#pragma omp for schedule(dynamic, 2)
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      std::int64_t at = panel;
      const Weight* weight = weights;
      for (; at >= weight->outputs / PANEL; ++weight) at -= weight->outputs / PANEL;
      pack_outputs(weight->numbers + at * PANEL * weight->in, weight->in, weight->out, weight->first + at * PANEL,
                   weight->forth, weight->back, own_room());
    }
  }
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
}
