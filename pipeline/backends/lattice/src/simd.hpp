// Eight floats at a time by the compiler's vector extensions: the same source for SSE2, AVX2, AVX-512 and NEON.
#pragma once
#include <cstdint>
#include <cstring>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace densemask::ISA {

typedef float f1 __attribute__((vector_size(4), aligned(4), may_alias));
typedef float f2 __attribute__((vector_size(8), aligned(4), may_alias));
typedef float f4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float f8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float f16 __attribute__((vector_size(64), aligned(4), may_alias));  // two registers where they are narrower
typedef int32_t i8 __attribute__((vector_size(32), aligned(4), may_alias));

template <int W> struct Lanes;
template <> struct Lanes<1> { typedef f1 type; };
template <> struct Lanes<2> { typedef f2 type; };
template <> struct Lanes<4> { typedef f4 type; };
template <> struct Lanes<8> { typedef f8 type; };
template <> struct Lanes<16> { typedef f16 type; };

inline f8 load8(const float* p) { return *reinterpret_cast<const f8*>(p); }
inline void store8(float* p, f8 v) { *reinterpret_cast<f8*>(p) = v; }
inline f8 splat8(float x) { return f8{x, x, x, x, x, x, x, x}; }
inline f8 max8(f8 a, f8 b) { return a > b ? a : b; }

inline f8 round8(f8 x) {
#ifdef __AVX2__
    return (f8)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const f8 magic = splat8(12582912.0f);  // 1.5 * 2^23: adding it leaves no bits for a fraction
    return (x + magic) - magic;
#endif
}

inline i8 to_int8(f8 x) { return __builtin_convertvector(x, i8); }

// One bit a lane, set where the mask is.
inline unsigned bits8(i8 mask) {
#ifdef __AVX2__
    return static_cast<unsigned>(_mm256_movemask_ps((__m256)mask));
#else
    unsigned bits = 0;
    for (int lane = 0; lane < 8; ++lane) bits |= static_cast<unsigned>(mask[lane] < 0) << lane;
    return bits;
#endif
}

// e^x for x <= 0: 2^n times a polynomial on [-ln2/2, ln2/2]; relative error below 2e-7, 0 below -87.
inline f8 exp8(f8 x) {
    const f8 low = splat8(-87.0f);
    const i8 gone = x < low;
    x = max8(x, low);
    const f8 n = round8(x * 1.44269504f);
    f8 r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    f8 p = splat8(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const i8 power = (to_int8(n) + 127) << 23;
    const f8 y = p * reinterpret_cast<const f8&>(power);
    return gone ? splat8(0.0f) : y;
}

// Sum and maximum over each group of W neighbouring lanes, in every lane of the group.
template <int W> inline f8 group_sum(f8 v) {
    if constexpr (W >= 2) v = v + __builtin_shuffle(v, i8{1, 0, 3, 2, 5, 4, 7, 6});
    if constexpr (W >= 4) v = v + __builtin_shuffle(v, i8{2, 3, 0, 1, 6, 7, 4, 5});
    if constexpr (W >= 8) v = v + __builtin_shuffle(v, i8{4, 5, 6, 7, 0, 1, 2, 3});
    return v;
}
template <int W> inline f8 group_max(f8 v) {
    if constexpr (W >= 2) v = max8(v, __builtin_shuffle(v, i8{1, 0, 3, 2, 5, 4, 7, 6}));
    if constexpr (W >= 4) v = max8(v, __builtin_shuffle(v, i8{2, 3, 0, 1, 6, 7, 4, 5}));
    if constexpr (W >= 8) v = max8(v, __builtin_shuffle(v, i8{4, 5, 6, 7, 0, 1, 2, 3}));
    return v;
}

}  // namespace densemask::ISA
