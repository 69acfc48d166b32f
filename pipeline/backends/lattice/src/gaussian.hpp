// A spatial kernel as what it is: an exact Gaussian over the pixel grid, separable, one banded matrix an axis.
#pragma once
#include <cmath>
#include <type_traits>
#include <vector>

#include "interface.hpp"
#include "layout.hpp"
#include "memory.hpp"

namespace densemask::ISA {


// Row i holds the taps of output i over inputs i - radius ... i + radius; zero outside the image.
struct Band {
    int radius = 0;
    int64_t length = 0;
    std::vector<float> taps;  // [length, 2 radius + 1]
    std::vector<float> ones;  // [length]: the rows' sums

    const float* row(int64_t i) const { return &taps[size_t(i) * (2 * radius + 1)]; }
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
    band.taps.assign(size_t(length) * count, 0.0f);
    band.ones.assign(length, 0.0f);
    for (int64_t i = 0; i < length; ++i)
        for (int k = -r; k <= r; ++k) {
            if (!inside(i + k)) continue;
            double factor = 1.0;
            if (normalization == Normalization::symmetric) factor = 1.0 / std::sqrt(n[i] * n[i + k]);
            if (normalization == Normalization::before) factor = 1.0 / n[i + k];
            if (normalization == Normalization::after) factor = 1.0 / n[i];
            const float value = float(tap[k + r] * factor);
            band.taps[size_t(i) * count + k + r] = value;
            band.ones[i] += value;
        }
    return band;
}

// out = (rows x columns) q, times `weight`, for the pixels of one block; or added to what is there.
// q: levels [height, width, lanes]. line: scratch of (BLOCK + 2 columns.radius) * lanes floats and 2 TOGETHER more; as
// many levels behind q are read.
constexpr int TOGETHER = 32;

template <bool ADD>
void separable(const Band& rows, const Band& columns, float weight, int lanes, const Level* q, const Block& at, float* line, float* out) {
    const int64_t width = columns.length, y = at.raster / width, x = at.raster % width;
    const int r = columns.radius;
    const int64_t first = std::max<int64_t>(0, x - r), last = std::min<int64_t>(width, x + at.count + r);
    const int before = int(first - (x - r)) * lanes, inside = int(last - first) * lanes, floats = at.count * lanes;

    const float* tap = rows.row(y) + rows.radius;
    const int low = int(std::max<int64_t>(-rows.radius, -y)), high = int(std::min<int64_t>(rows.radius, rows.length - 1 - y));
    const Level* from = q + (y * width + first) * lanes;
    std::fill_n(line, before, 0.0f);
    for (int i = 0; i < inside; i += TOGETHER) {
        Wide sum[TOGETHER / WIDE] = {};
        for (int k = low; k <= high; ++k)
            for (int v = 0; v < TOGETHER / WIDE; ++v) sum[v] += load_levels<Wide>(from + k * width * lanes + i + WIDE * v) * tap[k];
        for (int v = 0; v < TOGETHER / WIDE; ++v) store<Wide>(line + before + i + WIDE * v, sum[v] * (weight / LEVELS));
    }
    std::fill(line + before + inside, line + floats + 2 * r * lanes, 0.0f);

    const float* middle = line + r * lanes;
    // Rows of the band further than twice the radius from both ends are the same.
    const int left = int(std::clamp<int64_t>(2 * r - x, 0, at.count)), right = int(std::clamp<int64_t>(width - 2 * r - x, left, at.count));
    const auto put = [&](int j, auto value) {
        if constexpr (std::is_same_v<decltype(value), float>)
            out[j] = ADD ? out[j] + value : value;
        else
            store(out + j, ADD ? load<decltype(value)>(out + j) + value : value);
    };
    const auto edge = [&](int begin, int end) {
        for (int p = begin; p < end; ++p) {
            const float* t = columns.row(x + p) + r;
            int l = 0;
            for (; l + 8 <= lanes; l += 8) {
                f8 sum{};
                for (int k = -r; k <= r; ++k) sum += load<f8>(middle + (p + k) * lanes + l) * t[k];
                put(p * lanes + l, sum);
            }
            for (; l < lanes; ++l) {
                float sum = 0;
                for (int k = -r; k <= r; ++k) sum += middle[(p + k) * lanes + l] * t[k];
                put(p * lanes + l, sum);
            }
        }
    };
    edge(0, left);
    if (right > left) {
        const float* t = columns.row(x + left) + r;
        int j = left * lanes;
        for (; j + WIDE <= right * lanes; j += WIDE) {
            Wide sum = load<Wide>(middle + j) * t[0];
            for (int k = 1; k <= r; ++k) sum += (load<Wide>(middle + j - k * lanes) + load<Wide>(middle + j + k * lanes)) * t[k];
            put(j, sum);
        }
        for (; j < right * lanes; ++j) {
            float sum = middle[j] * t[0];
            for (int k = 1; k <= r; ++k) sum += (middle[j - k * lanes] + middle[j + k * lanes]) * t[k];
            put(j, sum);
        }
    }
    edge(right, at.count);
}

}  // namespace densemask::ISA
