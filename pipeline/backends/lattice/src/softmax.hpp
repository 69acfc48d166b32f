// The softmax over the lanes of a block of pixels, and which pixels have settled.
//
// WHOLE: each label has a lane. Otherwise the last label has none, where that halves the lanes: its logit is 0, and its
// message is that of all labels less the others', so a lane's logit grows by its own message and the sum of all.
#pragma once
#include <algorithm>

#include "filter.hpp"

namespace densemask::ISA {

constexpr float MOVED = 0.02f;
constexpr int CELL = 8;  // pixels of a row that leave the iteration together

// Q of a block from the lanes' logits [count, width]; where ADD, with the messages `f`.
// Counts the pixels of which a probability is further than MOVED from what `old`, the Q before, says.
template <bool WHOLE, bool ADD, class Shape>
int softmax_block(Shape shape, int count, const float* logits, const float* f, const float* old, float* q) {
    constexpr int W = Shape::lanes;
    int changed = 0;
    if constexpr (W < 8) {  // several pixels a vector
        typedef Wide V;
        const int floats = count * W;
        for (int i = 0; i < floats; i += WIDE) {
            V x = load<V>(logits + i);
            if constexpr (ADD) {
                const V message = load<V>(f + i);
                x += WHOLE ? message : message + group_sum<W>(message);
            }
            V top = group_max<W>(x);
            if constexpr (!WHOLE) top = larger(top, V{});
            const V e = exponential(x - top);
            V sum = group_sum<W>(e);
            if constexpr (!WHOLE) sum += exponential(-top);
            const V value = e / sum, step = value - load<V>(old + i);
            store<V>(q + i, value);
            unsigned moved = by_pixel<W>(bits((step > MOVED) | (step < -MOVED)));
            if (i + WIDE > floats) moved &= (1u << (floats - i)) - 1;
            changed += __builtin_popcount(moved);
        }
    } else {
        typedef typename Shape::Vector V;
        const int chunks = shape.count(), width = shape.width();
        for (int p = 0; p < count; ++p, logits += width, f += ADD ? width : 0, old += width, q += width) {
            V x[Shape::most_chunks], all{}, top{}, sum{};
            if constexpr (ADD && !WHOLE) {
                for (int c = 0; c < chunks; ++c) all += load<V>(f + W * c);
                all = group_sum<W>(all);
            }
            for (int c = 0; c < chunks; ++c) {
                x[c] = load<V>(logits + W * c);
                if constexpr (ADD) x[c] += load<V>(f + W * c) + all;
                top = WHOLE && c == 0 ? x[c] : larger(top, x[c]);
            }
            top = group_max<W>(top);
            for (int c = 0; c < chunks; ++c) sum += x[c] = exponential(x[c] - top);
            sum = group_sum<W>(sum);
            if constexpr (!WHOLE) sum += exponential(-top);
            const float scale = 1.0f / sum[0];
            Ints<V> moved{};
            for (int c = 0; c < chunks; ++c) {
                const V value = x[c] * scale, step = value - load<V>(old + W * c);
                store<V>(q + W * c, value);
                moved |= (step > MOVED) | (step < -MOVED);
            }
            changed += bits(moved) != 0;
        }
    }
    return changed;
}

// Marks the cells of a block in which a pixel's most probable label is not above `settled`.
template <bool WHOLE, class Shape>
void unsettled_cells(Shape shape, int count, const float* q, float settled, uint8_t* cells) {
    constexpr int W = Shape::lanes;
    std::fill_n(cells, BLOCK / CELL, uint8_t(0));
    if constexpr (W < 8) {
        typedef Wide V;
        const int floats = count * W;
        for (int i = 0; i < floats; i += WIDE) {
            const V value = load<V>(q + i);
            auto above = value > settled;
            if constexpr (!WHOLE) above |= group_sum<W>(value) < 1 - settled;
            unsigned open = by_pixel<W>(~0u) & ~by_pixel<W>(bits(above)) & ((1u << WIDE) - 1);
            if (i + WIDE > floats) open &= (1u << (floats - i)) - 1;
            for (; open; open &= open - 1) cells[(i + __builtin_ctz(open)) / W / CELL] = 1;
        }
    } else {
        typedef typename Shape::Vector V;
        const int chunks = shape.count(), width = shape.width();
        for (int p = 0; p < count; ++p, q += width) {
            V sum{};
            unsigned above = 0;
            for (int c = 0; c < chunks; ++c) {
                const V value = load<V>(q + W * c);
                above |= bits(value > settled);
                if constexpr (!WHOLE) sum += value;
            }
            if constexpr (!WHOLE) above |= group_sum<W>(sum)[0] < 1 - settled;
            if (!above) cells[p / CELL] = 1;
        }
    }
}

}  // namespace densemask::ISA
