// The unaries of a block, label by label (planes): energies, logits, and the Q that they alone say.
//
// WHOLE as in softmax.hpp: each of the labels has a lane, or all but the last one.
#pragma once
#include <algorithm>
#include <cmath>

#include "interface.hpp"
#include "layout.hpp"

namespace densemask::ISA {

constexpr float FARTHEST = 1e4f;

constexpr int ROWS_AHEAD = 2;  // how far down the strip to ask memory for the planes, more than a processor foresees

// What lies in the labels' planes for a block, [labels, BLOCK]; probabilities within their bounds.
inline void values_of(const Unary& unary, const Block& at, Grid grid, float* planes) {
    for (size_t l = 0; l < unary.planes.size(); ++l) {
        float* plane = planes + l * BLOCK;
        const float* values = unary.values + unary.planes[l] * grid.pixels() + at.raster;
        for (int p = 0; p < at.count; p += 16) __builtin_prefetch(values + ROWS_AHEAD * grid.width + p);
        if (unary.probabilities)
            for (int p = 0; p < at.count; ++p) {
                const float value = values[p] > unary.floor ? values[p] : unary.floor;  // of no number the floor
                plane[p] = value < 1.0f ? value : 1.0f;
            }
        else
            std::copy_n(values, at.count, plane);
    }
}

// Those values -> the lanes' logits against the least energy's, or that of the label without a lane.
template <bool WHOLE> void logits_of(bool probabilities, int labels, int count, float* planes) {
    const int lanes = labels - !WHOLE;
    for (int p = 0; p < count; p += WIDE) {
        Wide least{};
        for (int l = 0; l < labels; ++l) {
            Wide energy = load<Wide>(planes + l * BLOCK + p);
            if (probabilities) store<Wide>(planes + l * BLOCK + p, energy = -logarithm(energy));
            least = l ? smaller(least, energy) : energy;
        }
        // A label this far above the least energy has no probability, and would leave the others no digits.
        const Wide most = least + FARTHEST, last = smaller(load<Wide>(planes + (labels - 1) * BLOCK + p), most);
        for (int l = 0; l < lanes; ++l) {
            float* logit = planes + l * BLOCK + p;
            store<Wide>(logit, (WHOLE ? least : last) - smaller(load<Wide>(logit), most));
        }
    }
}

// Planes over their sum.
inline void sum_to_one(int lanes, int count, float* planes) {
    for (int p = 0; p < count; p += WIDE) {
        Wide sum{};
        for (int l = 0; l < lanes; ++l) sum += load<Wide>(planes + l * BLOCK + p);
        const Wide scale = 1.0f / sum;
        for (int l = 0; l < lanes; ++l) store<Wide>(planes + l * BLOCK + p, load<Wide>(planes + l * BLOCK + p) * scale);
    }
}

// Those values -> the labels' Q of them alone: probabilities over their sum, or the softmax.
inline void q_of(bool probabilities, int labels, int count, float* planes) {
    for (int p = 0; p < count && !probabilities; p += WIDE) {
        Wide least = load<Wide>(planes + p);
        for (int l = 1; l < labels; ++l) least = smaller(least, load<Wide>(planes + l * BLOCK + p));
        for (int l = 0; l < labels; ++l) store<Wide>(planes + l * BLOCK + p, exponential(least - load<Wide>(planes + l * BLOCK + p)));
    }
    sum_to_one(labels, count, planes);
}

}  // namespace densemask::ISA
