// The pairwise terms of a field, and how their messages bear on the lanes of L-1 labels.
#pragma once
#include <memory>
#include <vector>

#include "filter.hpp"
#include "gaussian.hpp"

namespace densemask::ISA {

// One pairwise term. Potts: message = -weight * filtered Q. Otherwise: message = matrix * filtered Q (symmetric).
struct Pairwise {
    std::shared_ptr<const Lattice> lattice;  // null: the separable Gaussian of `rows` and `columns`
    Band rows, columns;
    Array<float> before, after;  // [position]: what to scale by before the splat and after the slice
    Array<float> ones;           // [position]: the filter of ones, scaled; for a label without a lane
    std::vector<float> matrix;   // [L, L], or empty: Potts
    float weight = 1;            // of Potts; in `after` and `ones`
};

inline Pairwise potts_or(std::vector<float> matrix, float weight) {
    Pairwise term;
    if (matrix.empty()) term.weight = weight;
    term.matrix = std::move(matrix);
    return term;
}

inline Pairwise lattice_term(std::shared_ptr<const Lattice> lattice, float weight, std::vector<float> matrix, Normalization normalization,
                             bool with_ones) {
    Pairwise term = potts_or(std::move(matrix), weight);
    const size_t n = lattice->grid.pixels();
    float alphas[BLOCK], units[BLOCK];
    std::fill_n(alphas, BLOCK, lattice->alpha());
    std::fill_n(units, BLOCK, 1.0f);
    const Scale unit{units, 0}, alpha{alphas, 0};
    Array<float> norm = filter_lane(*lattice, unit, alpha);
    term.before = Array<float>(n);
    term.after = Array<float>(n);
    for (size_t p = 0; p < n; ++p) {
        const float inverse = 1.0f / (norm[p] + 1e-20f), root = 1.0f / std::sqrt(norm[p] + 1e-20f);
        const bool symmetric = normalization == Normalization::symmetric;
        term.before[p] = symmetric ? root : normalization == Normalization::before ? inverse : 1.0f;
        term.after[p] = (symmetric ? root : normalization == Normalization::after ? inverse : 1.0f) * alphas[0] * term.weight;
    }
    if (with_ones) term.ones = filter_lane(*lattice, {term.before.data(), 1}, {term.after.data(), 1});
    term.lattice = std::move(lattice);
    return term;
}

inline Pairwise gaussian_term(Grid grid, double y_deviation, double x_deviation, float weight, std::vector<float> matrix,
                              Normalization normalization, bool with_ones) {
    Pairwise term = potts_or(std::move(matrix), weight);
    term.rows = make_band(grid.height, y_deviation, normalization);
    term.columns = make_band(grid.width, x_deviation, normalization);
    if (!with_ones) return term;
    term.ones = Array<float>(grid.pixels());
    for (int64_t b = 0; b < grid.blocks(); ++b) {
        const Block at = grid.block(b);
        const int64_t y = at.raster / grid.width, x = at.raster % grid.width;
        for (int p = 0; p < at.count; ++p) term.ones[at.position + p] = term.weight * term.rows.ones[y] * term.columns.ones[x + p];
    }
    return term;
}

struct Field {
    int labels;
    Grid grid;
    std::vector<Pairwise> terms;

    // Whether each label has a lane of its own: not where one less halves the lanes.
    bool whole() const { return labels != 2 && labels != 3 && labels != 5 && labels != 9 && labels != 17; }
};

// How the messages F of a term bear on the lanes: t_l += sum_j matrix[j][l] F_j + ones * constant[l].
struct Mixing {
    std::vector<float> matrix;    // [lanes, width], or empty: Potts
    std::vector<float> constant;  // [width]: what the label without a lane says
};

inline Mixing mixing_of(const Pairwise& term, int labels, bool whole, int width) {
    Mixing mixing;
    if (term.matrix.empty()) return mixing;
    const int last = labels - 1, lanes = whole ? labels : last;
    auto m = [&](int l, int j) { return term.matrix[size_t(l) * labels + j]; };
    mixing.matrix.assign(size_t(lanes) * width, 0.0f);
    mixing.constant.assign(width, 0.0f);
    for (int l = 0; l < lanes; ++l) {
        if (!whole) mixing.constant[l] = -(m(l, last) - m(last, last));
        for (int j = 0; j < lanes; ++j)
            mixing.matrix[size_t(j) * width + l] = whole ? -m(l, j) : -(m(l, j) - m(last, j) - m(l, last) + m(last, last));
    }
    return mixing;
}

// What changes of a pairwise term as the field is narrowed; arrays are by position.
struct Term {
    const Pairwise* given;
    Mixing mixing;
    std::shared_ptr<const Lattice> lattice;
    const float *before, *after;             // what to scale by before the splat and after the slice
    Array<float> own_before{}, own_after{};  // of the narrowed lattice
    Array<float> ones{};                     // of terms with a matrix, for the label without a lane
    Array<float> vertices{};                 // [vertices, width], or empty: no message yet

    bool potts() const { return given->matrix.empty(); }
};

// t += the messages' bearing on the lanes of `count` pixels; t, message: [count, width]; ones: [count], or none.
inline void mix(const Mixing& mixing, int count, int lanes, int width, const float* ones, const float* message, float* t) {
    for (int p = 0; p < count; ++p)
        for (int l = 0; l < width; ++l) {
            float sum = ones ? mixing.constant[l] * ones[p] : 0.0f;
            for (int j = 0; j < lanes; ++j) sum += mixing.matrix[size_t(j) * width + l] * message[p * width + j];
            t[p * width + l] += sum;
        }
}

}  // namespace densemask::ISA
