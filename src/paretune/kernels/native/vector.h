// Sixteen numbers at a time: bf16 in memory, fp32 in registers; exp, and GELU with its derivative.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

using bf16 = std::uint16_t;

inline __m512 load(const bf16* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}

inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }

inline __m256i narrow(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }

inline void store(bf16* p, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }

inline void store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }

inline bf16 narrow(float x) {
  bf16 all[16];
  store(all, _mm512_set1_ps(x));
  return all[0];
}

inline float wide(bf16 x) {
  std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

// Two neighbouring bf16 numbers as one.
inline std::int32_t pair(const bf16* p) {
  std::int32_t both;
  std::memcpy(&both, p, 4);
  return both;
}

// e^x to about 1e-7 relative; below -87 it is 0. 2^n · e^f, the polynomial is Cephes' expf (Moshier 1989).
inline __m512 exp16(__m512 x) {
  const __m512 low = _mm512_set1_ps(-87.0f);
  __mmask16 there = _mm512_cmp_ps_mask(x, low, _CMP_GE_OQ);
  x = _mm512_min_ps(_mm512_max_ps(x, low), _mm512_set1_ps(88.0f));
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 f = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  f = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), f);
  __m512 y = _mm512_set1_ps(1.9875691500e-4f);
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.3981999507e-3f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(8.3334519073e-3f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(4.1665795894e-2f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.6666665459e-1f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.0000001201e-1f));
  y = _mm512_fmadd_ps(y, _mm512_mul_ps(f, f), _mm512_add_ps(f, _mm512_set1_ps(1.0f)));
  return _mm512_maskz_scalef_ps(there, y, n);
}

// 2^x to about 1e-07 relative, enough for what is rounded to bf16; below -126 it is 0. Polynomial by interpolation at
// Chebyshev's points of [-½, ½].
inline __m512 exp2_16(__m512 x) {
  const __m512 low = _mm512_set1_ps(-126.0f);
  __mmask16 there = _mm512_cmp_ps_mask(x, low, _CMP_GE_OQ);
  __m512 n = _mm512_roundscale_ps(x, 0);
  __m512 f = _mm512_sub_ps(x, n);
  __m512 y = _mm512_set1_ps(0.00133908634f);
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.00967603192f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.0555035711f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.240221075f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.693147188f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.00000008f));
  return _mm512_maskz_scalef_ps(there, y, n);
}

// As it is after being stored in bf16.
inline __m512 rounded(__m512 x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(x)), 16)); }

// Φ(x), the normal distribution, to about 1e-7: ½ + ½ erf(x / √2), erf as a rational function on [-4, 4] (the
// coefficients are those of Eigen's perf, Guennebaud et al. 2010).
inline __m512 phi(__m512 x) {
  const __m512 most = _mm512_set1_ps(4.0f);
  __m512 z = _mm512_mul_ps(x, _mm512_set1_ps(0.70710678f));
  z = _mm512_min_ps(_mm512_max_ps(z, _mm512_sub_ps(_mm512_setzero_ps(), most)), most);
  __m512 s = _mm512_mul_ps(z, z);
  __m512 p = _mm512_set1_ps(-2.72614225801306e-10f);
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(2.77068142495902e-08f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-2.10102402082508e-06f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-5.69250639462346e-05f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-7.34990630326855e-04f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-2.95459980854025e-03f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-1.60960333262415e-02f));
  __m512 q = _mm512_set1_ps(-1.45660718464996e-05f);
  q = _mm512_fmadd_ps(q, s, _mm512_set1_ps(-2.13374055278905e-04f));
  q = _mm512_fmadd_ps(q, s, _mm512_set1_ps(-1.68282697438203e-03f));
  q = _mm512_fmadd_ps(q, s, _mm512_set1_ps(-7.37332916720468e-03f));
  q = _mm512_fmadd_ps(q, s, _mm512_set1_ps(-1.42647390514189e-02f));
  const __m512 half = _mm512_set1_ps(0.5f);
  __m512 inverse_q = _mm512_rcp14_ps(q);
  inverse_q = _mm512_mul_ps(inverse_q, _mm512_fnmadd_ps(q, inverse_q, _mm512_set1_ps(2.0f)));
  return _mm512_fmadd_ps(_mm512_mul_ps(_mm512_mul_ps(z, half), p), inverse_q, half);
}

// x·Φ(x) and its derivative Φ(x) + x·φ(x).
struct Gelu {
  __m512 value, slope;
};

inline Gelu gelu(__m512 x) {
  __m512 share = phi(x);
  __m512 density =
      _mm512_mul_ps(exp16(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f))), _mm512_set1_ps(0.39894228f));
  return {_mm512_mul_ps(x, share), _mm512_fmadd_ps(x, density, share)};
}

// Sixteen registers of sixteen dwords as columns.
inline void transpose(__m512i (&r)[16]) {
  __m512i s[16];
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(s[i + j], s[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(s[i + j], s[i + j + 2]);
    }
  for (int i = 0; i < 8; ++i) {  // quarters of rows i % 4 + 0, 4, 8, 12
    int j = i % 4 + 8 * (i / 4);
    s[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
    s[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0xdd);
  }
}

inline __mmask16 first_of(int left) {
  return left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
}

// Dwords (pairs of numbers) of `rows` rows as columns: to[p · wide + t] is pair p of row t; rows past the last are 0.
inline void pairs_as_columns(const bf16* from, std::int64_t stride, int rows, int wide, int pairs, std::int32_t* to) {
  for (int t = 0; t < wide; t += 16)
    for (int p = 0; p < pairs; p += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i)
        block[i] = t + i < rows ? _mm512_maskz_loadu_epi32(first_of(pairs - p), from + (t + i) * stride + 2 * p)
                                : _mm512_setzero_si512();
      transpose(block);
      for (int i = 0; i < 16 && p + i < pairs; ++i)
        _mm512_storeu_si512(to + static_cast<std::int64_t>(p + i) * wide + t, block[i]);
    }
}

// Rows 2j and 2j + 1 side by side: to[j · columns + c] is the pair of column c; a missing last row is 0.
inline void rows_as_pairs(const bf16* from, std::int64_t stride, int rows, int columns, std::int32_t* to) {
  for (int j = 0; 2 * j < rows; ++j) {
    const bf16* upper = from + static_cast<std::int64_t>(2 * j) * stride;
    bool last = 2 * j + 1 >= rows;
    for (int c = 0; c < columns; c += 16) {
      __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(upper + c)));
      __m512i high =
          last ? _mm512_setzero_si512()
               : _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(upper + stride + c)));
      _mm512_storeu_si512(to + static_cast<std::int64_t>(j) * columns + c,
                          _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}
