// Floats in vectors by the compiler's extensions: the same source for SSE2, AVX2, AVX-512 and NEON.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace densemask::ISA {

typedef float f1 __attribute__((vector_size(4), aligned(4), may_alias));
typedef float f2 __attribute__((vector_size(8), aligned(4), may_alias));
typedef float f4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float f8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float f16 __attribute__((vector_size(64), aligned(4), may_alias));  // two registers where they are narrower
typedef int32_t i8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4), may_alias));

// Twelve floats without a gap: on a machine that does eight or sixteen at a time, two operations as sixteen are.
struct f12 {
    f8 low;
    f4 high;

    f12& operator+=(const f12& other) { return low += other.low, high += other.high, *this; }
    friend f12 operator+(f12 a, const f12& b) { return a += b; }
    friend f12 operator*(const f12& a, float b) { return {a.low * b, a.high * b}; }
    friend f12 operator*(float a, const f12& b) { return b * a; }
} __attribute__((may_alias));

template <int W> struct Lanes;
template <> struct Lanes<1> { typedef f1 type; };
template <> struct Lanes<2> { typedef f2 type; };
template <> struct Lanes<4> { typedef f4 type; };
template <> struct Lanes<8> { typedef f8 type; };
template <> struct Lanes<12> { typedef f12 type; };
template <> struct Lanes<16> { typedef f16 type; };

// As wide as a register is, eight at least: for passes over many pixels.
#ifdef __AVX512F__
typedef f16 Wide;
#else
typedef f8 Wide;
#endif
constexpr int WIDE = sizeof(Wide) / sizeof(float);

template <class V> using Ints = std::conditional_t<sizeof(V) == sizeof(f16), i16, i8>;

typedef uint16_t Words __attribute__((vector_size(sizeof(Wide)), aligned(2), may_alias));
constexpr int WORDS = sizeof(Words) / sizeof(uint16_t);

inline Words load_words(const uint16_t* p) {
    Words words;
    std::memcpy(&words, p, sizeof(words));
    return words;
}
inline void store_words(uint16_t* p, Words words) { std::memcpy(p, &words, sizeof(words)); }

// The upper sixteen bits of the products.
inline Words upper_product(Words a, Words b) {
#if defined(__AVX512BW__)
    return (Words)_mm512_mulhi_epu16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Words)_mm256_mulhi_epu16((__m256i)a, (__m256i)b);
#else
    Words upper;
    for (int i = 0; i < WORDS; ++i) upper[i] = uint16_t(uint32_t(a[i]) * b[i] >> 16);
    return upper;
#endif
}

// A vector type loses its alignment of 4 as a template argument; copies do not ask for any.
template <class V> inline V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof(V));
    return v;
}
template <class V> inline void store(float* p, V v) { std::memcpy(p, &v, sizeof(V)); }
// Of a number and what is none, the second.
template <class V> inline V larger(V a, V b) { return a > b ? a : b; }
template <class V> inline V smaller(V a, V b) { return a < b ? a : b; }
template <class V> inline Ints<V> to_int(V x) { return __builtin_convertvector(x, Ints<V>); }

// To the nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
template <class V> inline V nearest(V x) {
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

// One bit a lane, set where the mask is.
template <class Mask> inline unsigned bits(Mask mask) {
#ifdef __AVX512DQ__
    if constexpr (sizeof(Mask) == sizeof(i16)) return _mm512_movepi32_mask((__m512i)mask);
#endif
#ifdef __AVX2__
    if constexpr (sizeof(Mask) == sizeof(i8)) return static_cast<unsigned>(_mm256_movemask_ps((__m256)mask));
#endif
#ifdef __AVX2__
    if constexpr (sizeof(Mask) == sizeof(i16)) {
        const i8* half = reinterpret_cast<const i8*>(&mask);
        return bits(half[0]) | bits(half[1]) << 8;
    }
#endif
    unsigned found = 0;
    for (unsigned lane = 0; lane < sizeof(Mask) / 4; ++lane) found |= static_cast<unsigned>(mask[lane] < 0) << lane;
    return found;
}

// e^x for x <= 0: 2^n times a polynomial on [-ln2/2, ln2/2]; relative error below 2e-7, 0 below -87.
template <class V> inline __attribute__((always_inline)) V exponential(V x) {
    const V none{}, low = none - 87.0f;
    const auto gone = x < low;
    x = larger(x, low);
    const V n = nearest(x * 1.44269504f);
    V r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    V p = none + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Ints<V> power = (to_int(n) + 127) << 23;
    const V y = p * std::bit_cast<V>(power);
    return gone ? none : y;
}

// ln x for x >= 1e-30, relative error below 1e-6: the exponent, and a polynomial of the mantissa in [sqrt(1/2), sqrt(2)].
template <class V> inline __attribute__((always_inline)) V logarithm(V x) {
    const Ints<V> word = std::bit_cast<Ints<V>>(x);
    const Ints<V> exponent = ((word - 0x3f3504f3) >> 23);
    const Ints<V> mantissa = word - (exponent << 23);
    const V m = std::bit_cast<V>(mantissa) - 1.0f, e = __builtin_convertvector(exponent, V), z = m * m;
    V p = V{} + 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    return m + (p * m * z - e * 2.12194440e-4f - z * 0.5f) + e * 0.693359375f;
}

}  // namespace densemask::ISA
