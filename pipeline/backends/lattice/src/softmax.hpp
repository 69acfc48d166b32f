// The softmax of a block of pixels, as planes, and which pixels have settled.
//
// WHOLE: each label has a lane. Otherwise the last label has none, where that halves the lanes: its logit is 0, and its
// message is that of all labels less the others', so a lane's logit grows by its own message and the sum of all.
#pragma once
#include <algorithm>

#include "layout.hpp"

namespace densemask::ISA {

constexpr float MOVED = 0.02f;
constexpr int CELL = 8;  // pixels of a row that leave the iteration together

// Marks the cells of a vector of pixels, of which `count` lie in the block, that have one whose largest probability is
// not above `settled`.
inline void mark_open(Wide largest, float settled, int count, uint8_t* open) {
    const unsigned inside = count < WIDE ? (1u << count) - 1 : (1u << WIDE) - 1;
    const unsigned unsettled = bits(largest <= settled) & inside;
    for (int cell = 0; cell * CELL < std::min(WIDE, count); ++cell) open[cell] = (unsettled >> cell * CELL & 0xff) != 0;
}

// The same of a block's Q.
template <bool WHOLE> void mark_open(int lanes, int count, const float* q, float settled, uint8_t* open) {
    for (int p = 0; p < count; p += WIDE, open += WIDE / CELL) {
        Wide largest{}, rest = Wide{} + 1.0f;
        for (int l = 0; l < lanes; ++l) {
            const Wide value = load<Wide>(q + l * BLOCK + p);
            largest = larger(largest, value);
            rest -= value;
        }
        mark_open(WHOLE ? largest : larger(largest, rest), settled, count - p, open);
    }
}

// Logits -> Q, in place; where ADD, with the messages `f`. Marks the open cells.
template <bool WHOLE, bool ADD>
void softmax_block(int lanes, int count, const float* f, float settled, float* x, uint8_t* open) {
    for (int p = 0; p < count; p += WIDE, open += WIDE / CELL) {
        Wide all{}, top{}, sum{};
        for (int l = 0; ADD && !WHOLE && l < lanes; ++l) all += load<Wide>(f + l * BLOCK + p);
        for (int l = 0; l < lanes; ++l) {
            Wide logit = load<Wide>(x + l * BLOCK + p);
            if constexpr (ADD) store<Wide>(x + l * BLOCK + p, logit += load<Wide>(f + l * BLOCK + p) + all);
            top = WHOLE && l == 0 ? logit : larger(top, logit);
        }
        for (int l = 0; l < lanes; ++l) {
            const Wide e = exponential(load<Wide>(x + l * BLOCK + p) - top);
            store<Wide>(x + l * BLOCK + p, e);
            sum += e;
        }
        if constexpr (!WHOLE) sum += exponential(-top);
        const Wide largest = 1.0f / sum;  // the largest exponential is 1
        for (int l = 0; l < lanes; ++l) store<Wide>(x + l * BLOCK + p, load<Wide>(x + l * BLOCK + p) * largest);
        mark_open(largest, settled, count - p, open);
    }
}

// Takes Q as far again `beyond` as it lies from the old one. Returns of how many pixels a probability is further than
// MOVED from the old one.
inline int go_beyond(int lanes, int count, const float* old, float beyond, float* q) {
    int moved = 0;
    for (int p = 0; p < count; p += WIDE) {
        Wide furthest{};
        for (int l = 0; l < lanes; ++l) {
            const Wide value = load<Wide>(q + l * BLOCK + p), way = value - load<Wide>(old + l * BLOCK + p);
            store<Wide>(q + l * BLOCK + p, value + way * beyond);
            furthest = larger(furthest, larger(way, -way));
        }
        const unsigned inside = count - p < WIDE ? (1u << (count - p)) - 1 : (1u << WIDE) - 1;
        moved += __builtin_popcount(bits(furthest > MOVED) & inside);
    }
    return moved;
}

}  // namespace densemask::ISA
