// How the labels of a block of pixels lie: as planes (for each label its pixels, BLOCK apart), as lanes (for each pixel
// its labels, `width` apart), and as levels: lanes in 16 bits, for what is kept of a whole image.
#pragma once
#include <algorithm>
#include <cstdint>

#include "grid.hpp"
#include "simd.hpp"

namespace densemask::ISA {

typedef uint16_t Level;
typedef Level l8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef Level l16 __attribute__((vector_size(32), aligned(2), may_alias));
template <class V> using Levels = std::conditional_t<sizeof(V) == sizeof(f16), l16, l8>;

constexpr float LEVELS = 65535.0f;  // one, in levels: probabilities are off by 8e-6 at most

// Levels as numbers, from 0 to LEVELS; and back.
template <class V> inline V load_levels(const Level* p) {
    Levels<V> levels;
    std::memcpy(&levels, p, sizeof(levels));
    return __builtin_convertvector(__builtin_convertvector(levels, Ints<V>), V);
}
template <class V> inline Levels<V> to_levels(V value) {
    return __builtin_convertvector(to_int<V>(value + 0.5f), Levels<V>);
}

inline void levels_to_lanes(const Level* levels, int floats, float* lanes) {  // writes whole vectors
    for (int i = 0; i < floats; i += WIDE) store<Wide>(lanes + i, load_levels<Wide>(levels + i) * (1 / LEVELS));
}

inline void levels_between(const Level* levels, const Level* less, int floats, float* lanes) {  // writes whole vectors
    for (int i = 0; i < floats; i += WIDE)
        store<Wide>(lanes + i, (load_levels<Wide>(levels + i) - load_levels<Wide>(less + i)) * (1 / LEVELS));
}

// What is below 0 or above 1 becomes 0 or 1.
inline void lanes_to_levels(const float* lanes, int floats, Level* levels) {
    for (int i = 0; i < floats; i += WIDE) {
        const Wide value = smaller(larger(load<Wide>(lanes + i), Wide{}), Wide{} + 1.0f);
        const Levels<Wide> found = to_levels<Wide>(value * LEVELS);
        if (i + WIDE <= floats)
            std::memcpy(levels + i, &found, sizeof(found));
        else
            std::memcpy(levels + i, &found, sizeof(Level) * (floats - i));
    }
}

// The lanes of two vectors in turn: the lower halves', the upper halves'; and back.
template <class V> inline V zipped_low(V a, V b) {
    if constexpr (sizeof(V) == sizeof(f16))
        return __builtin_shuffle(a, b, i16{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
    else
        return __builtin_shuffle(a, b, i8{0, 8, 1, 9, 2, 10, 3, 11});
}
template <class V> inline V zipped_high(V a, V b) {
    if constexpr (sizeof(V) == sizeof(f16))
        return __builtin_shuffle(a, b, i16{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
    else
        return __builtin_shuffle(a, b, i8{4, 12, 5, 13, 6, 14, 7, 15});
}
template <class V> inline V evens(V a, V b) {
    if constexpr (sizeof(V) == sizeof(f16))
        return __builtin_shuffle(a, b, i16{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30});
    else
        return __builtin_shuffle(a, b, i8{0, 2, 4, 6, 8, 10, 12, 14});
}
template <class V> inline V odds(V a, V b) {
    if constexpr (sizeof(V) == sizeof(f16))
        return __builtin_shuffle(a, b, i16{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31});
    else
        return __builtin_shuffle(a, b, i8{1, 3, 5, 7, 9, 11, 13, 15});
}

// N labels are turned at a time, a vector of pixels each: as many as there are, or a register holds.
// Of twelve lanes the last vector reaches into the next pixel's.
template <class Shape> constexpr int TURNED = Shape::lanes < WIDE && Shape::lanes != 12 ? Shape::lanes : WIDE;
template <int N> using Turned = typename Lanes<(N >= 8 ? N : WIDE)>::type;

// Where vector i of N that are turned lies among the lanes: it is pixel i's, or of fewer labels those of many pixels.
template <int N> inline int place(int i, int width) {
    return N >= 8 ? i * width : i * WIDE;
}

// How many planes are read or written where the lanes of a shape are turned.
template <class Shape> int planes_of(Shape shape) {
    constexpr int N = TURNED<Shape>;
    return (shape.width() + N - 1) / N * N;
}

template <class V> inline f4 first_four(V v) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3);
}

template <class Shape> void planes_to_lanes(Shape shape, const float* planes, int count, float* lanes) {
    constexpr int N = TURNED<Shape>;
    typedef Turned<N> V;
    constexpr int PIXELS = sizeof(V) / sizeof(float);
    const int width = shape.width();
    for (int p = 0; p < count; p += PIXELS)
        for (int label = 0; label < width; label += N) {
            V v[N], next[N];
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) v[i] = load<V>(planes + (label + i) * BLOCK + p);
#pragma GCC unroll 4
            for (int apart = 1; apart < N; apart *= 2) {
#pragma GCC unroll 8
                for (int i = 0; i < N / 2; ++i) {
                    next[2 * i] = zipped_low<V>(v[i], v[i + N / 2]);
                    next[2 * i + 1] = zipped_high<V>(v[i], v[i + N / 2]);
                }
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) v[i] = next[i];
            }
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) {
                float* to = lanes + p * width + label + place<N>(i, width);
                if (Shape::lanes == 12 && label == 8)
                    store<f4>(to, first_four(v[i]));
                else
                    store<V>(to, v[i]);  // of sixteen the last four are the next pixel's, who comes next
            }
        }
}

template <class Shape> void lanes_to_planes(Shape shape, const float* lanes, int count, float* planes) {
    constexpr int N = TURNED<Shape>;
    typedef Turned<N> V;
    constexpr int PIXELS = sizeof(V) / sizeof(float);
    const int width = shape.width();
    for (int p = 0; p < count; p += PIXELS)
        for (int label = 0; label < width; label += N) {
            V v[N], next[N];
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) v[i] = load<V>(lanes + p * width + label + place<N>(i, width));
#pragma GCC unroll 4
            for (int apart = 1; apart < N; apart *= 2) {
#pragma GCC unroll 8
                for (int i = 0; i < N / 2; ++i) {
                    next[i] = evens<V>(v[2 * i], v[2 * i + 1]);
                    next[i + N / 2] = odds<V>(v[2 * i], v[2 * i + 1]);
                }
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) v[i] = next[i];
            }
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) store<V>(planes + (label + i) * BLOCK + p, v[i]);
        }
}

}  // namespace densemask::ISA
