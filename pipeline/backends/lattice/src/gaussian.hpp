// A spatial kernel as what it is: an exact Gaussian over the pixel grid, separable, one banded matrix an axis.
#pragma once
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "interface.hpp"
#include "layout.hpp"
#include "memory.hpp"

namespace densemask::ISA {

constexpr float SUM_OF_SHARES = 65000.0f;  // of the greatest row: the sum of a row's products keeps within 16 bits

// Row i holds the taps of output i over inputs i - radius ... i + radius; zero outside the image.
struct Band {
    int radius = 0;
    int64_t length = 0;
    std::vector<Level> taps;  // [length, 2 radius + 1]: in `unit`s
    std::vector<float> ones;  // [length]: the rows' sums
    float unit = 0;

    const Level* row(int64_t i) const { return &taps[size_t(i) * (2 * radius + 1)]; }
};

inline Band make_band(int64_t length, double deviation, Normalization normalization) {
    Band band;
    const double reach = std::max(1.0, std::ceil(4 * deviation) - 1);  // what is four deviations away weighs 0.0003
    band.radius = int(std::min<double>(reach, double(std::max<int64_t>(1, length - 1))));
    band.length = length;
    const int r = band.radius, count = 2 * r + 1;
    std::vector<double> tap(count), n(length, 0.0);
    for (int k = -r; k <= r; ++k) tap[k + r] = std::exp(-0.5 * k * k / (deviation * deviation));
    auto inside = [&](int64_t i) { return i >= 0 && i < length; };
    for (int64_t i = 0; i < length; ++i)
        for (int k = -r; k <= r; ++k)
            if (inside(i + k)) n[i] += tap[k + r];
    std::vector<double> taps(size_t(length) * count);
    band.ones.assign(length, 0.0f);
    for (int64_t i = 0; i < length; ++i)
        for (int k = -r; k <= r; ++k) {
            if (!inside(i + k)) continue;
            double factor = 1.0;
            if (normalization == Normalization::symmetric) factor = 1.0 / std::sqrt(n[i] * n[i + k]);
            if (normalization == Normalization::before) factor = 1.0 / n[i + k];
            if (normalization == Normalization::after) factor = 1.0 / n[i];
            taps[size_t(i) * count + k + r] = tap[k + r] * factor;
            band.ones[i] += float(tap[k + r] * factor);
        }
    band.unit = *std::max_element(band.ones.begin(), band.ones.end()) / SUM_OF_SHARES;
    band.taps.resize(taps.size());
    std::transform(taps.begin(), taps.end(), band.taps.begin(), [&](double value) { return Level(value / band.unit + 0.5); });
    return band;
}

constexpr int TOGETHER = 2 * WORDS;

// Sums of the products' upper halves, TOGETHER at a time: of levels `apart` from each other with taps `low` to `high`.
inline void filter_levels(const Level* levels, int64_t apart, const Level* taps, int low, int high, Level* to) {
    Words sum{}, more{};
    for (int k = low; k <= high; ++k) {
        const Words tap = Words{} + taps[k];
        sum += upper_product(load_words(levels + k * apart), tap);
        more += upper_product(load_words(levels + k * apart + WORDS), tap);
    }
    store_words(to, sum);
    store_words(to + WORDS, more);
}

// out = (rows x columns) q, times `weight`, for the pixels of one block; or added to what is there. In sixteen bits from
// the levels to the sums, which are short by less than a unit a tap.
// q: levels [height, width, lanes]; line: scratch of (BLOCK + 2 columns.radius) * lanes; behind both are TOGETHER more.
template <bool ADD>
void separable(const Band& rows, const Band& columns, float weight, int lanes, const Level* q, const Block& at, Level* line, float* out) {
    const int64_t width = columns.length, y = at.raster / width, x = at.raster % width;
    const int r = columns.radius;
    const int64_t first = std::max<int64_t>(0, x - r), last = std::min<int64_t>(width, x + at.count + r);
    const int before = int(first - (x - r)) * lanes, inside = int(last - first) * lanes;

    const int low = int(std::max<int64_t>(-rows.radius, -y)), high = int(std::min<int64_t>(rows.radius, rows.length - 1 - y));
    const Level *from = q + (y * width + first) * lanes, *tap = rows.row(y) + rows.radius;
    std::fill_n(line, before, Level(0));
    for (int i = 0; i < inside; i += TOGETHER) filter_levels(from + i, width * lanes, tap, low, high, line + before + i);
    std::fill(line + before + inside, line + (at.count + 2 * r) * lanes, Level(0));

    const float scale = weight * rows.unit * columns.unit * (65536.0f * 65536.0f / LEVELS);
    const Level* middle = line + r * lanes;
    Level sums[TOGETHER];
    const auto put = [&](int j, auto value) {
        if constexpr (std::is_same_v<decltype(value), float>)
            out[j] = ADD ? out[j] + value : value;
        else
            store(out + j, ADD ? load<decltype(value)>(out + j) + value : value);
    };
    const auto some = [&](int j, int count, const Level* taps) {
        filter_levels(middle + j, lanes, taps, -r, r, sums);
        for (int i = 0; i < count; ++i) put(j + i, float(sums[i]) * scale);
    };
    const auto edge = [&](int begin, int end) {
        for (int p = begin; p < end; ++p)
            for (int l = 0; l < lanes; l += TOGETHER) some(p * lanes + l, std::min(TOGETHER, lanes - l), columns.row(x + p) + r);
    };
    // Rows of the band further than twice the radius from both ends are the same.
    const int left = int(std::clamp<int64_t>(2 * r - x, 0, at.count)), right = int(std::clamp<int64_t>(width - 2 * r - x, left, at.count));
    edge(0, left);
    int j = left * lanes;
    const int end = right * lanes;
    if (right > left) {
        const Level* taps = columns.row(x + left) + r;
        for (; j + TOGETHER <= end; j += TOGETHER) {
            filter_levels(middle + j, lanes, taps, -r, r, sums);
            for (int i = 0; i < TOGETHER; i += WIDE) put(j + i, load_levels<Wide>(sums + i) * scale);
        }
        if (j < end) some(j, end - j, taps);
    }
    edge(right, at.count);
}

}  // namespace densemask::ISA
