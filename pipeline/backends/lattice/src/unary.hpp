// The unaries of a block, label by label: energies, logits, and the softmax of these.
//
// WHOLE as in softmax.hpp: each of the labels has a lane, or all but the last one.
#pragma once
#include <algorithm>
#include <cmath>

#include "interface.hpp"
#include "simd.hpp"

namespace densemask::ISA {

constexpr float FARTHEST = 1e4f;

// The energies of a block, [labels, BLOCK]; `pixels` is the size of a plane of the image.
inline void energies_of(const Unary& unary, const Block& at, int64_t pixels, float* planes) {
    for (size_t l = 0; l < unary.planes.size(); ++l) {
        float* energy = planes + l * BLOCK;
        std::copy_n(unary.values + unary.planes[l] * pixels + at.raster, at.count, energy);
        for (int p = 0; unary.probabilities && p < BLOCK; p += WIDE) {
            const Wide value = larger(load<Wide>(energy + p), Wide{} + unary.floor);
            store<Wide>(energy + p, -logarithm(smaller(value, Wide{} + 1.0f)));
        }
    }
}

// Energies [labels, BLOCK] -> logits [width, BLOCK] against the least energy's, or that of the label without a lane.
template <bool WHOLE> void logits_of(int labels, int width, float* planes) {
    const int lanes = labels - !WHOLE;
    for (int p = 0; p < BLOCK; p += WIDE) {
        Wide least = load<Wide>(planes + p);
        for (int l = 1; l < labels; ++l) least = smaller(least, load<Wide>(planes + l * BLOCK + p));
        // A label this far above the least energy has no probability, and would leave the others no digits.
        const Wide most = least + FARTHEST, last = smaller(load<Wide>(planes + (labels - 1) * BLOCK + p), most);
        for (int l = 0; l < lanes; ++l) {
            float* logit = planes + l * BLOCK + p;
            store<Wide>(logit, (WHOLE ? least : last) - smaller(load<Wide>(logit), most));
        }
        for (int l = lanes; l < width; ++l) store<Wide>(planes + l * BLOCK + p, Wide{} - INFINITY);
    }
}

// The softmax of logits [width, BLOCK], pixel by pixel.
template <bool WHOLE> void softmax_of(int labels, int width, const float* logits, float* q) {
    const int lanes = labels - !WHOLE;
    for (int p = 0; p < BLOCK; p += WIDE) {
        Wide top{}, sum{};  // of WHOLE logits the largest is zero
        for (int l = 0; l < lanes && !WHOLE; ++l) top = larger(top, load<Wide>(logits + l * BLOCK + p));
        if (!WHOLE) sum = exponential(-top);
        for (int l = 0; l < width; ++l) {
            const Wide e = exponential(load<Wide>(logits + l * BLOCK + p) - top);
            store<Wide>(q + l * BLOCK + p, e);
            sum += e;
        }
        const Wide scale = 1.0f / sum;
        for (int l = 0; l < lanes; ++l) store<Wide>(q + l * BLOCK + p, load<Wide>(q + l * BLOCK + p) * scale);
    }
}

// [width, BLOCK] -> [count, width].
inline void interleave(const float* planes, int count, int width, float* lanes) {
    for (int p = 0; p < count; ++p)
        for (int l = 0; l < width; ++l) lanes[p * width + l] = planes[l * BLOCK + p];
}

}  // namespace densemask::ISA
