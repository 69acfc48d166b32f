// The permutohedral lattice (Adams, Baek and Davis, Eurographics 2010): a Gaussian filter over points in d dimensions.
//
// A point lies in a simplex of d+1 vertices, to which it splats with its barycentric weights; the vertices are blurred
// along d+1 axes; the point slices its simplex back. The lattice A*_d is isomorphic to Z^d by a_i = (k_{i-1} - k_i) / (d+1),
// where k are its usual d+1 coordinates: a step along axis j takes a_j up by one and a_{j+1} down by one. So a vertex is
// one integer in a mixed radix, an axis is one constant to add, and sorted keys meet their neighbours in one merge.
// Vertices are numbered by their keys, whose highest digits are of the position in an image: what is used together lies
// together, and the passes over neighbours walk the memory in order.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "chains.hpp"
#include "grid.hpp"
#include "simd.hpp"

namespace densemask::ISA {

constexpr int MAX_DIMENSIONS = 32;
constexpr int SOON = 32;  // how many keys ahead to ask memory for their places in the table
constexpr uint32_t NONE = 0xffffffffu;

struct Lattice {
    int d = 0;
    Grid grid{};
    uint32_t vertices = 0;
    Array<uint32_t> corner;  // [position, d+1]
    Array<float> weight;     // [position, d+1]
    std::vector<Chains> axes;

    float alpha() const { return 1.0f / (1.0f + std::ldexp(1.0f, -d)); }
};

// Features of a block of pixels: out[i * BLOCK + p] is the i-th feature of pixel p.
struct Features {
    int d;
    virtual void fill(const Block& block, float* out) const = 0;
    // The least and the largest value of each feature; not finite where a feature is not.
    virtual void range(float* low, float* high) const = 0;
    virtual ~Features() = default;
};

// The mixed radix of a vertex's key: sum of (a_i - low_i) * stride_i, i = 1..d, and what a step along an axis adds.
struct Radix {
    int d;
    int64_t low[MAX_DIMENSIONS], stride[MAX_DIMENSIONS], step[MAX_DIMENSIONS + 1];
    double cells;
};

inline void feature_scales(int d, float* scale) {
    // In the roundings of the authors' code: on the faces of simplices a last bit decides which vertices exist.
    const float spread = float(std::sqrt(2.0 / 3.0) * (d + 1));
    for (int i = 0; i < d; ++i) scale[i] = float(1.0 / std::sqrt(double((i + 2) * (i + 1))) * spread);
}

inline Radix radix_of(const Features& features) {
    const int d = features.d;
    float low[MAX_DIMENSIONS], high[MAX_DIMENSIONS];
    features.range(low, high);
    for (int i = 0; i < d; ++i)
        if (!std::isfinite(low[i]) || !std::isfinite(high[i])) throw std::invalid_argument("a feature is not a finite number");
    float scale[MAX_DIMENSIONS];
    feature_scales(d, scale);
    Radix radix{d, {}, {}, {}, 1.0};
    int64_t size[MAX_DIMENSIONS];
    for (int i = 1; i <= d; ++i) {  // (d+1) a_i lies near (i+1) scale f_{i-1} - (i-1) scale f_{i-2}
        const double up = double(i + 1) / (d + 1) * scale[i - 1];
        const double down = i > 1 ? double(i - 1) / (d + 1) * scale[i - 2] : 0.0;
        const double lo = up * low[i - 1] - (i > 1 ? down * high[i - 2] : 0.0);
        const double hi = up * high[i - 1] - (i > 1 ? down * low[i - 2] : 0.0);
        if (!(std::abs(lo) < 4e6 && std::abs(hi) < 4e6))
            throw std::invalid_argument("the features span " + std::to_string(hi - lo) +
                                        " lattice cells, too many for single precision; take larger deviations");
        radix.low[i - 1] = int64_t(std::floor(lo)) - 4;
        size[i - 1] = int64_t(std::ceil(hi)) + 5 - radix.low[i - 1];
        radix.cells *= double(size[i - 1]);
    }
    if (radix.cells > 9e18)
        throw std::invalid_argument("the features span " + std::to_string(radix.cells) +
                                    " lattice cells, more than 9e18; take larger deviations");
    int64_t stride = 1;
    for (int i = d; i >= 1; --i) radix.stride[i - 1] = stride, stride *= size[i - 1];
    for (int j = 0; j <= d; ++j)
        radix.step[j] = (j > 0 ? radix.stride[j - 1] : 0) - (j < d ? radix.stride[j] : 0);
    return radix;
}

// Simplices of a block of points: the keys of their vertices, by remainder, and barycentric weights.
template <int D, class Key> struct Embedding {
    static constexpr int SIZE = (D ? D : MAX_DIMENSIONS) + 1;
    typedef Key Keys __attribute__((vector_size(8 * sizeof(Key)), aligned(4), may_alias));
    Key key[SIZE][BLOCK];
    float weight[SIZE][BLOCK];

    // Products and sums are rounded one by one, as in the authors' code (see feature_scales).
    __attribute__((optimize("fp-contract=off"))) void of(const float* features, const Radix& radix, const float* scale, int count) {
        const int d = D ? D : radix.d;
        const float down = 1.0f / (d + 1), up = float(d + 1);
        for (int at = 0; at < count; at += 8) {
            f8 residual[SIZE], rounded[SIZE];
            i8 rank[SIZE], order[SIZE];
            f8 sum = f8{};
            for (int j = d; j > 0; --j) {
                const f8 scaled = load<f8>(features + (j - 1) * BLOCK + at) * scale[j - 1];
                residual[j] = sum - float(j) * scaled;
                sum = sum + scaled;
            }
            residual[0] = sum;
            i8 excess{};
            for (int i = 0; i <= d; ++i) {
                rounded[i] = nearest<f8>(residual[i] * down);
                residual[i] = residual[i] - rounded[i] * up;
                excess += to_int<f8>(rounded[i]);
                rank[i] = i8{};
            }
            for (int i = 0; i < d; ++i)
                for (int j = i + 1; j <= d; ++j) {
                    const i8 less = residual[i] < residual[j];
                    rank[i] -= less;
                    rank[j] -= ~less;
                }
            for (int i = 0; i <= d; ++i) {  // bring the point onto the plane where the coordinates sum to zero
                rank[i] += excess;
                const i8 over = rank[i] > d, under = rank[i] < 0;
                rank[i] += (over - under) * (d + 1);
                const f8 shift = __builtin_convertvector(under - over, f8);  // -1: up to the next, +1: down
                rounded[i] = rounded[i] - shift;
                residual[i] = residual[i] + shift * up;
                order[i] = i8{} + i;
            }
            for (int i = 0; i < d; ++i)  // by rank, not by residual: of equals the earlier axis comes first
                for (int j = i + 1; j <= d; ++j) {
                    const i8 less = rank[i] > rank[j];
                    const i8 lower = less ? rank[j] : rank[i];
                    rank[j] = less ? rank[i] : rank[j];
                    rank[i] = lower;
                    const f8 greater = less ? residual[j] : residual[i];
                    residual[j] = less ? residual[i] : residual[j];
                    residual[i] = greater;
                    const i8 first = less ? order[j] : order[i];
                    order[j] = less ? order[i] : order[j];
                    order[i] = first;
                }
            store<f8>(&weight[0][at], (residual[d] - residual[0]) * down + 1.0f);
            for (int k = 1; k <= d; ++k) store<f8>(&weight[k][at], (residual[d - k] - residual[d - k + 1]) * down);
            Keys vertex{};
            for (int i = 1; i <= d; ++i) {
                const i8 a = to_int<f8>(rounded[i - 1] - rounded[i]) - int32_t(radix.low[i - 1]);
                vertex += __builtin_convertvector(a, Keys) * static_cast<Key>(radix.stride[i - 1]);
            }
            put(0, at, vertex);
            for (int k = 1; k <= d; ++k) put(k, at, vertex += steps_along(order[d - k + 1], radix));
        }
    }

private:
    void put(int k, int at, Keys vertex) { std::memcpy(&key[k][at], &vertex, sizeof(vertex)); }

    // What a step adds along each of these axes.
    static Keys steps_along(i8 axes, const Radix& radix) {
        Keys steps;
        if constexpr (SIZE <= 8) {
            Keys all{};
            for (int j = 0; j < SIZE; ++j) all[j] = static_cast<Key>(radix.step[j]);
            steps = __builtin_shuffle(all, __builtin_convertvector(axes, Keys));
        } else {
            for (int p = 0; p < 8; ++p) steps[p] = static_cast<Key>(radix.step[axes[p]]);
        }
        return steps;
    }
};

template <int D, class Key> void build(Lattice& lattice, const Features& features, const Radix& radix) {
    const int d = D ? D : radix.d;
    const int64_t n = lattice.grid.pixels();
    if (n * (d + 1) >= int64_t(NONE)) throw std::invalid_argument("too many pixels for one lattice; label it in tiles");
    float scale[MAX_DIMENSIONS];
    feature_scales(d, scale);
    lattice.corner = Array<uint32_t>(size_t(n) * (d + 1));
    lattice.weight = Array<float>(size_t(n) * (d + 1));
    Table<Key> table(n);
    {
        Embedding<D, Key> simplex;
        std::vector<float> block(size_t(d) * BLOCK);
        for (int64_t b = 0; b < lattice.grid.blocks(); ++b) {
            const Block at = lattice.grid.block(b);
            features.fill(at, block.data());
            simplex.of(block.data(), radix, scale, at.count);
            table.reserve(size_t(BLOCK) * (d + 1));
            uint32_t* corner = &lattice.corner[size_t(at.position) * (d + 1)];
            float* weight = &lattice.weight[size_t(at.position) * (d + 1)];
            for (int p = 0; p < std::min(at.count, SOON); ++p) table.prefetch(simplex.key[0][p]);
            for (int k = 0; k <= d; ++k)
                for (int p = 0; p < at.count; ++p) {
                    const int soon = k * BLOCK + p + SOON;
                    table.prefetch(simplex.key[std::min(soon / BLOCK, d)][soon % BLOCK]);
                    corner[p * (d + 1) + k] = table.insert(simplex.key[k][p]);
                    weight[p * (d + 1) + k] = simplex.weight[k][p];
                }
        }
    }
    table.forget_places();
    lattice.vertices = table.size();
    const Sorted<Key> sorted(table, radix.cells);
    for (uint32_t& corner : lattice.corner) corner = sorted.rank[corner];
    lattice.axes = axes_of(sorted, radix.step, d);
}

inline Lattice make_lattice(const Features& features, Grid grid) {
    Lattice lattice;
    lattice.d = features.d;
    lattice.grid = grid;
    const Radix radix = radix_of(features);
    const bool narrow = radix.cells < 4e9;
    if (features.d == 5)
        narrow ? build<5, uint32_t>(lattice, features, radix) : build<5, uint64_t>(lattice, features, radix);
    else if (features.d == 2)
        narrow ? build<2, uint32_t>(lattice, features, radix) : build<2, uint64_t>(lattice, features, radix);
    else
        build<0, uint64_t>(lattice, features, radix);
    return lattice;
}

}  // namespace densemask::ISA
