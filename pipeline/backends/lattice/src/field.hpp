// Mean-field inference in a fully connected CRF (Kraehenbuehl and Koltun, NIPS 2011, Algorithm 1).
//
// Q sums to one and the filters are linear, so L labels need L-1 lanes: the last label is the reference, its message is
// that of all labels together less the others'. Per iteration: the spatial kernel, then one pass over the pixels that
// slices, adds, takes the softmax and splats for the next iteration, then the blur.
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
    Array<float> ones;           // [position]: the filter of ones, scaled
    std::vector<float> matrix;   // [L, L], or empty: Potts
    float weight = 0;            // of Potts
};

inline Pairwise lattice_term(std::shared_ptr<const Lattice> lattice, Normalization normalization) {
    Pairwise term;
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
        term.after[p] = (symmetric ? root : normalization == Normalization::after ? inverse : 1.0f) * alphas[0];
    }
    term.ones = filter_lane(*lattice, {term.before.data(), 1}, {term.after.data(), 1});
    term.lattice = std::move(lattice);
    return term;
}

inline Pairwise gaussian_term(Grid grid, double y_deviation, double x_deviation, Normalization normalization) {
    Pairwise term;
    term.rows = make_band(grid.height, y_deviation, normalization);
    term.columns = make_band(grid.width, x_deviation, normalization);
    term.ones = Array<float>(grid.pixels());
    for (int64_t b = 0; b < grid.blocks(); ++b) {
        const Block at = grid.block(b);
        const int64_t y = at.raster / grid.width, x = at.raster % grid.width;
        for (int p = 0; p < at.count; ++p) term.ones[at.position + p] = term.rows.ones[y] * term.columns.ones[x + p];
    }
    return term;
}


struct Field {
    int labels;
    Grid grid;
    std::vector<Pairwise> terms;
};

// How the messages of a term bear on the lanes: t_l += sum_j matrix[j][l] F_j + ones * constant[l].
struct Mixing {
    std::vector<float> matrix;    // [lanes, width], or empty: Potts
    std::vector<float> constant;  // [width]
};

inline Mixing mixing_of(const Pairwise& term, int labels, int width) {
    Mixing mixing;
    if (term.matrix.empty()) return mixing;
    const int last = labels - 1;
    auto m = [&](int l, int j) { return term.matrix[size_t(l) * labels + j]; };
    mixing.matrix.assign(size_t(last) * width, 0.0f);
    mixing.constant.assign(width, 0.0f);
    for (int l = 0; l < last; ++l) {
        mixing.constant[l] = -(m(l, last) - m(last, last));
        for (int j = 0; j < last; ++j) mixing.matrix[size_t(j) * width + l] = -(m(l, j) - m(last, j) - m(l, last) + m(last, last));
    }
    return mixing;
}

constexpr float SETTLED = 0.02f;

// Q of a block from the lanes' logits against the reference label, [count, width]; with Potts messages `f` it is of
// logits + f + the sum of f: the reference label's message is that of all labels (in the logits) less the others'.
// Counts the pixels of which a probability is further than SETTLED from what `old`, the Q before, says.
template <bool POTTS, class Shape>
int softmax_block(Shape shape, int count, const float* logits, const float* f, const float* old, float* q) {
    constexpr int W = Shape::lanes;
    int changed = 0;
    if constexpr (W < 8) {  // several pixels a vector
        const int floats = count * W;
        for (int i = 0; i < floats; i += 8) {
            f8 x = load8(logits + i);
            if constexpr (POTTS) x += load8(f + i) + group_sum<W>(load8(f + i));
            const f8 top = max8(group_max<W>(x), splat8(0.0f));
            const f8 e = exp8(x - top);
            const f8 value = e / (exp8(-top) + group_sum<W>(e)), step = value - load8(old + i);
            store8(q + i, value);
            unsigned moved = bits8((step > SETTLED) | (step < -SETTLED));
            if (i + 8 > floats) moved &= (1u << (floats - i)) - 1;
            if constexpr (W == 2) moved = (moved | moved >> 1) & 0x55;
            if constexpr (W == 4) moved = (moved | moved >> 1 | moved >> 2 | moved >> 3) & 0x11;
            changed += __builtin_popcount(moved);
        }
    } else {
        const int chunks = shape.width() / 8, width = shape.width();
        for (int p = 0; p < count; ++p, logits += width, f += POTTS ? width : 0, old += width, q += width) {
            f8 all{}, top{}, sum{};
            if constexpr (POTTS) {
                for (int c = 0; c < chunks; ++c) all += load8(f + 8 * c);
                all = group_sum<8>(all);
            }
            for (int c = 0; c < chunks; ++c) {
                f8 x = load8(logits + 8 * c);
                if constexpr (POTTS) x += load8(f + 8 * c) + all;
                top = max8(top, x);
                store8(q + 8 * c, x);
            }
            top = group_max<8>(top);
            for (int c = 0; c < chunks; ++c) {
                const f8 e = exp8(load8(q + 8 * c) - top);
                store8(q + 8 * c, e);
                sum += e;
            }
            const f8 scale = 1.0f / (exp8(-top) + group_sum<8>(sum));
            i8 moved{};
            for (int c = 0; c < chunks; ++c) {
                const f8 value = load8(q + 8 * c) * scale, step = value - load8(old + 8 * c);
                store8(q + 8 * c, value);
                moved |= (step > SETTLED) | (step < -SETTLED);
            }
            changed += bits8(moved) != 0;
        }
    }
    return changed;
}

constexpr float FARTHEST = 1e4f;

// The whole inference for one shape of lanes.
template <class Shape> class MeanField {
public:
    MeanField(const Field& field, Shape shape)
        : field_(field), shape_(shape), width_(shape.width()), lanes_(field.labels - 1) {
        const size_t n = field.grid.pixels();
        int reach = 0;
        for (auto* block : {&t_, &f_, &q_block_}) *block = Array<float>(size_t(BLOCK) * width_ + 8);
        unary_ = Array<float>(n * width_ + 8);
        q_ = Array<float>(n * width_ + 8);
        q_next_ = Array<float>(n * width_ + 8);
        for (const auto& term : field.terms) {
            mixings_.push_back(mixing_of(term, field.labels, width_));
            after_.emplace_back(term.lattice ? n : 0);
            for (size_t p = 0; p < after_.back().size(); ++p)
                after_.back()[p] = term.after[p] * (term.matrix.empty() ? term.weight : 1.0f);
            const size_t vertices = term.lattice ? size_t(term.lattice->vertices) * width_ : 0;
            now_.emplace_back(vertices);
            next_.emplace_back(vertices);
            reach = std::max(reach, term.columns.radius);
        }
        line_ = Array<float>(size_t(BLOCK + 2 * reach) * width_ + 32);
        for (auto& vertices : now_) std::fill(vertices.begin(), vertices.end(), 0.0f);
    }

    // unary: [L, N] energies in raster order. q: [L, N], read first where `resume`, and the result.
    int run(const float* unary, float* q, const Inference& inference, bool resume) {
        start(unary, resume ? q : nullptr);
        int iteration = 0;
        const int64_t n = field_.grid.pixels();
        while (iteration < inference.iterations) {
            const int64_t changed = step();
            ++iteration;
            if (double(changed) < inference.stop_when_unchanged * double(n)) break;
        }
        write(q);
        return iteration;
    }

private:
    // The lanes' logits against the reference label; Q of them alone, or the one given, splatted.
    void start(const float* unary, const float* given) {
        const int64_t n = field_.grid.pixels();
        for (int64_t b = 0; b < field_.grid.blocks(); ++b) {
            const Block at = field_.grid.block(b);
            float most[BLOCK], all[BLOCK] = {};
            for (int p = 0; p < at.count; ++p) most[p] = unary[at.raster + p];
            for (int l = 1; l <= lanes_; ++l)
                for (int p = 0; p < at.count; ++p) most[p] = std::min(most[p], unary[l * n + at.raster + p]);
            // A label this far above the least energy has no probability, and would leave the others no digits.
            for (int p = 0; p < at.count; ++p) most[p] += FARTHEST;
            for (int l = 0; l < width_; ++l)
                for (int p = 0; p < at.count; ++p)
                    t_[p * width_ + l] = l < lanes_ ? std::min(unary[lanes_ * n + at.raster + p], most[p]) -
                                                          std::min(unary[l * n + at.raster + p], most[p])
                                                    : -INFINITY;
            for (const Pairwise& term : field_.terms)
                for (int p = 0; p < at.count && term.matrix.empty(); ++p) all[p] += term.weight * term.ones[at.position + p];
            for (int p = 0; p < at.count; ++p)
                for (int l = 0; l < width_; ++l) unary_[at.position * width_ + p * width_ + l] = t_[p * width_ + l] - all[p];
            softmax_block<false>(shape_, at.count, t_.data(), nullptr, t_.data(), q_block_.data());
            if (given)
                for (int p = 0; p < at.count; ++p)
                    for (int l = 0; l < lanes_; ++l) q_block_[p * width_ + l] = given[l * n + at.raster + p];
            std::copy_n(q_block_.data(), at.count * width_, &q_[at.raster * width_]);
            splat_terms(at, q_block_.data(), now_);
        }
        blur_lattices(now_);
    }

    void splat_terms(const Block& at, const float* q, std::vector<Array<float>>& vertices) {
        for (size_t k = 0; k < field_.terms.size(); ++k) {
            const Pairwise& term = field_.terms[k];
            if (term.lattice) splat_block(*term.lattice, shape_, at, &term.before[at.position], q, vertices[k].data());
        }
    }

    void blur_lattices(std::vector<Array<float>>& of) {
        for (size_t k = 0; k < field_.terms.size(); ++k)
            if (field_.terms[k].lattice) blur_all(*field_.terms[k].lattice, shape_, of[k].data());
    }

    int64_t step() {
        for (auto& vertices : next_) std::fill(vertices.begin(), vertices.end(), 0.0f);
        int64_t changed = 0;
        for (int64_t b = 0; b < field_.grid.blocks(); ++b) {
            const Block at = field_.grid.block(b);
            const int floats = at.count * width_;
            float* q = &q_next_[at.raster * width_];
            if (floats % 8 == 0) {
                changed += update(at, q);
            } else {  // whole vectors would run into the next block's pixels
                changed += update(at, q_block_.data());
                std::copy_n(q_block_.data(), floats, q);
            }
            splat_terms(at, q, next_);
        }
        q_.swap(q_next_);
        now_.swap(next_);
        blur_lattices(now_);
        return changed;
    }

    // The block's new Q; how many of its pixels have not settled.
    int update(const Block& at, float* q) {
        const float* logits = &unary_[at.position * width_];
        bool potts = false, mixed = false;
        for (size_t k = 0; k < field_.terms.size(); ++k) {
            const Pairwise& term = field_.terms[k];
            if (term.matrix.empty()) continue;
            if (!mixed) std::copy_n(logits, at.count * width_, t_.data());
            mixed = true;
            message(k, at, false);
            mix(mixings_[k], at, &term.ones[at.position], f_.data(), t_.data());
        }
        for (size_t k = 0; k < field_.terms.size(); ++k)
            if (field_.terms[k].matrix.empty()) potts = message(k, at, potts);
        if (mixed) logits = t_.data();
        const float* old = &q_[at.raster * width_];
        return potts ? softmax_block<true>(shape_, at.count, logits, f_.data(), old, q)
                     : softmax_block<false>(shape_, at.count, logits, nullptr, old, q);
    }

    // The filtered Q of a term into f_, or added to it; true.
    bool message(size_t k, const Block& at, bool add) {
        const Pairwise& term = field_.terms[k];
        if (term.lattice) {
            const float *vertices = now_[k].data(), *scale = &after_[k][at.position];
            if (add)
                slice_block<true>(*term.lattice, shape_, at, scale, vertices, f_.data());
            else
                slice_block<false>(*term.lattice, shape_, at, scale, vertices, f_.data());
        } else {
            const float weight = term.matrix.empty() ? term.weight : 1.0f;
            if (add)
                separable<true>(term.rows, term.columns, weight, width_, q_.data(), at, line_.data(), f_.data());
            else
                separable<false>(term.rows, term.columns, weight, width_, q_.data(), at, line_.data(), f_.data());
        }
        return true;
    }

    void mix(const Mixing& mixing, const Block& at, const float* ones, const float* message, float* t) {
        for (int p = 0; p < at.count; ++p)
            for (int l = 0; l < width_; ++l) {
                float sum = mixing.constant[l] * ones[p];
                for (int j = 0; j < lanes_; ++j) sum += mixing.matrix[size_t(j) * width_ + l] * message[p * width_ + j];
                t[p * width_ + l] += sum;
            }
    }

    void write(float* q) {
        const int64_t n = field_.grid.pixels();
        for (int64_t b = 0; b < field_.grid.blocks(); ++b) {
            const Block at = field_.grid.block(b);
            const float* from = &q_[at.raster * width_];
            float left[BLOCK];
            std::fill_n(left, BLOCK, 1.0f);
            for (int l = 0; l < lanes_; ++l)
                for (int p = 0; p < at.count; ++p) {
                    const float value = from[p * width_ + l];
                    q[l * n + at.raster + p] = value;
                    left[p] -= value;
                }
            for (int p = 0; p < at.count; ++p) q[lanes_ * n + at.raster + p] = left[p] > 0 ? left[p] : 0.0f;
        }
    }

    const Field& field_;
    Shape shape_;
    int width_, lanes_;
    Array<float> unary_, q_, q_next_;       // unary by position, Q by raster
    std::vector<Mixing> mixings_;
    std::vector<Array<float>> after_;       // by term: the scale after the slice, times the weight of Potts
    std::vector<Array<float>> now_, next_;  // by term: vertices
    Array<float> t_, f_, q_block_, line_;   // of one block: logits, messages, Q, the Gaussian's scratch
};

// unary, q: float32 [L, N]. Returns the iterations done.
inline int infer(const Field& field, const float* unary, float* q, const Inference& inference, bool resume) {
    auto run = [&](auto shape) { return MeanField<decltype(shape)>(field, shape).run(unary, q, inference, resume); };
    const int lanes = field.labels - 1;
    if (lanes <= 0) {
        std::fill_n(q, field.grid.pixels() * field.labels, 1.0f);
        return 0;
    }
    if (lanes == 1) return run(Shape<1, 1>(lanes));
    if (lanes == 2) return run(Shape<2, 1>(lanes));
    if (lanes <= 4) return run(Shape<4, 1>(lanes));
    if (lanes <= 8) return run(Shape<8, 1>(lanes));
    if (lanes <= 16) return run(Shape<16, 1>(lanes));
    if (lanes <= 24) return run(Shape<8, 3>(lanes));
    return run(Shape<8, 0>(lanes));
}

}  // namespace densemask::ISA
