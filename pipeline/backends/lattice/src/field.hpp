// Mean-field inference in a fully connected CRF (Kraehenbuehl and Koltun, NIPS 2011, Algorithm 1).
//
// Per iteration: one pass over the pixels that gathers the messages and takes the softmax, one that splats, and the blur.
// Q sums to one and the filters are linear, so the last label needs no lane of its own.
//
// Most pixels settle at once. They then leave the iteration: what they say to the others is folded into the others'
// logits, and the lattice is cut down to those. Later changes travel over the vertices and links that are left.
#pragma once
#include <memory>
#include <vector>

#include "narrow.hpp"
#include "pairwise.hpp"
#include "softmax.hpp"
#include "unary.hpp"

namespace densemask::ISA {

constexpr double WORTH_NARROWING = 0.5;  // of the pixels in play: with more left, cutting costs more than it saves

// The whole inference for one shape of lanes.
template <class Shape, bool WHOLE> class MeanField {
public:
    MeanField(const Field& field, Shape shape)
        : field_(field), shape_(shape), width_(shape.width()), lanes_(field.labels - !WHOLE) {
        const size_t n = field.grid.pixels();
        for (int64_t b = 0; b < field.grid.blocks(); ++b) walk_.push_back(field.grid.block(b));
        int reach = 0;
        for (const Pairwise& given : field.terms) {
            Term term{&given, mixing_of(given, field.labels, WHOLE, width_), given.lattice, given.before.data(), given.after.data()};
            if (given.lattice) term.make_vertices(width_);
            term.ones = Array<float>(WHOLE || term.potts() ? 0 : n);
            std::copy_n(given.ones.data(), term.ones.size(), term.ones.data());
            reach = std::max(reach, given.columns.radius);
            terms_.push_back(std::move(term));
        }
        for (auto* block : {&t_, &f_, &q_block_}) *block = Array<float>(size_t(BLOCK) * width_ + WIDE);
        line_ = Array<float>(size_t(BLOCK + 2 * reach) * width_ + 2 * WIDE);
        for (auto* image : {&unary_, &q_, &fresh_}) *image = Array<float>(n * width_ + WIDE);
    }

    // q: [L, N] in raster order, read first where `resume`, and the result.
    int run(const Unary& unary, float* q, const Inference& inference, bool resume) {
        start(unary, resume ? q : nullptr);
        int iteration = 0;
        const int64_t n = field_.grid.pixels();
        while (iteration < inference.iterations) {
            const int64_t changed = step();
            ++iteration;
            if (double(changed) < inference.stop_when_unchanged * double(n)) break;
            if (inference.settled_above > 0 && iteration < inference.iterations) narrow(float(inference.settled_above));
        }
        write(q);
        return iteration;
    }

private:
    // What changes of a pairwise term as the field is narrowed; arrays are by position.
    struct Term {
        const Pairwise* given;
        Mixing mixing;
        std::shared_ptr<const Lattice> lattice;
        const float *before, *after;           // what to scale by before the splat and after the slice
        Array<float> own_before{}, own_after{};  // of the narrowed lattice
        Array<float> ones{};                   // of terms with a matrix, for the label without a lane
        Array<float> vertices{};               // [vertices, width]

        bool potts() const { return given->matrix.empty(); }
        void make_vertices(int width) {
            vertices.clear();
            vertices = Array<float>(size_t(lattice->vertices) * width);
            std::fill(vertices.begin(), vertices.end(), 0.0f);
        }
    };

    // The lanes' logits, against the most probable label or the one without a lane; Q of them alone, or the one given,
    // splatted.
    void start(const Unary& unary, const float* given) {
        const int64_t n = field_.grid.pixels();
        Array<float> planes(size_t(std::max(width_, field_.labels)) * BLOCK), ratios(size_t(width_) * BLOCK);
        for (auto* block : {&planes, &ratios}) std::fill(block->begin(), block->end(), 0.0f);
        for (const Block& at : walk_) {
            energies_of(unary, at, n, planes.data());
            logits_of<WHOLE>(field_.labels, width_, planes.data());
            float* logits = &unary_[at.position * width_];
            interleave(planes.data(), at.count, width_, logits);
            if (given)
                for (int l = 0; l < lanes_; ++l) std::copy_n(&given[l * n + at.raster], at.count, &ratios[l * BLOCK]);
            else
                softmax_of<WHOLE>(field_.labels, width_, planes.data(), ratios.data());
            float* q = q_block_.data();
            interleave(ratios.data(), at.count, width_, q);
            std::copy_n(q, at.count * width_, &q_[at.raster * width_]);
            for (Term& term : terms_) {
                splat_term(term, at, q);
                if (WHOLE || !term.potts()) continue;
                for (int p = 0; p < at.count; ++p)
                    for (int l = 0; l < lanes_; ++l) logits[p * width_ + l] -= term.given->ones[at.position + p];
            }
        }
        blur_terms();
    }

    void splat_term(Term& term, const Block& at, const float* q) {
        if (term.lattice) splat_block(*term.lattice, shape_, at, &term.before[at.position], q, term.vertices.data());
    }

    void blur_terms() {
        for (Term& term : terms_)
            if (term.lattice) blur_all(*term.lattice, shape_, term.vertices.data());
    }

    // One iteration; how many pixels it moved.
    int64_t step() {
        int64_t changed = 0;
        for (const Block& at : walk_) changed += update(at, &fresh_[at.position * width_]);  // in whole vectors, in order
        for (Term& term : terms_) std::fill(term.vertices.begin(), term.vertices.end(), 0.0f);
        for (const Block& at : walk_) {
            const float* q = &fresh_[at.position * width_];
            std::copy_n(q, at.count * width_, &q_[at.raster * width_]);
            for (Term& term : terms_) splat_term(term, at, q);
        }
        blur_terms();
        return changed;
    }

    // The block's new Q; how many of its pixels it moved.
    int update(const Block& at, float* q) {
        const float* logits = &unary_[at.position * width_];
        bool potts = false, mixed = false;
        for (const Term& term : terms_) {
            if (term.potts()) continue;
            if (!mixed) std::copy_n(logits, at.count * width_, t_.data());
            mixed = true;
            message(term, at, false);
            mix(term.mixing, at.count, WHOLE ? nullptr : &term.ones[at.position], f_.data(), t_.data());
        }
        for (const Term& term : terms_)
            if (term.potts()) message(term, at, std::exchange(potts, true));
        if (mixed) logits = t_.data();
        const float* old = &q_[at.raster * width_];
        return potts ? softmax_block<WHOLE, true>(shape_, at.count, logits, f_.data(), old, q)
                     : softmax_block<WHOLE, false>(shape_, at.count, logits, nullptr, old, q);
    }

    // The filtered Q of a term into f_, or added to it.
    void message(const Term& term, const Block& at, bool add) {
        if (term.lattice) {
            const float *vertices = term.vertices.data(), *scale = &term.after[at.position];
            add ? slice_block<true>(*term.lattice, shape_, at, scale, vertices, f_.data())
                : slice_block<false>(*term.lattice, shape_, at, scale, vertices, f_.data());
        } else {
            const Pairwise& given = *term.given;
            add ? separable<true>(given.rows, given.columns, given.weight, width_, q_.data(), at, line_.data(), f_.data())
                : separable<false>(given.rows, given.columns, given.weight, width_, q_.data(), at, line_.data(), f_.data());
        }
    }

    void mix(const Mixing& mixing, int count, const float* ones, const float* message, float* t) {
        for (int p = 0; p < count; ++p)
            for (int l = 0; l < width_; ++l) {
                float sum = ones ? mixing.constant[l] * ones[p] : 0.0f;
                for (int j = 0; j < lanes_; ++j) sum += mixing.matrix[size_t(j) * width_ + l] * message[p * width_ + j];
                t[p * width_ + l] += sum;
            }
    }

    // Takes the settled cells out of the iteration, if they are enough to be worth it.
    void narrow(float settled) {
        std::vector<Cut> cuts;
        int64_t before = 0, left = 0;
        uint8_t cells[BLOCK / CELL];
        for (const Block& at : walk_) {
            unsettled_cells<WHOLE>(shape_, at.count, &q_[at.raster * width_], settled, cells);
            before += at.count;
            for (int from = 0; from < at.count;) {
                int to = from;
                while (to < at.count && cells[to / CELL]) to = std::min(to + CELL, at.count);
                if (to > from) cuts.push_back({at.position + from, {at.raster + from, left, to - from}});
                left += to - from;
                from = std::max(to, from + CELL);
            }
        }
        if (double(left) > WORTH_NARROWING * double(before)) return;
        Array<float> unary(left * width_ + WIDE);
        walk_.clear();
        for (const auto& [from, to] : cuts) {
            std::copy_n(&unary_[from * width_], to.count * width_, &unary[to.position * width_]);
            walk_.push_back(to);
        }
        unary_.swap(unary);
        for (Term& term : terms_) narrow_term(term, cuts, left);
    }

    // What the lattice says now stays in the logits, less what the narrowed one will say of the same Q.
    void narrow_term(Term& term, const std::vector<Cut>& cuts, int64_t left) {
        const auto kept = [&](const float* of) {
            Array<float> part(left);
            for (const auto& [from, to] : cuts) std::copy_n(&of[from], to.count, &part[to.position]);
            return part;
        };
        if (term.ones.size()) term.ones = kept(term.ones.data());
        if (!term.lattice) return;
        for (const auto& [from, to] : cuts) {
            message(term, {to.raster, from, to.count}, false);
            tell(term, to, 1.0f);
        }
        term.own_before = kept(term.before);
        term.own_after = kept(term.after);
        term.before = term.own_before.data(), term.after = term.own_after.data();
        term.lattice = std::make_shared<Lattice>(narrowed(*term.lattice, cuts, left));
        term.make_vertices(width_);
        for (const Block& at : walk_) {
            std::copy_n(&q_[at.raster * width_], at.count * width_, q_block_.data());
            splat_term(term, at, q_block_.data());
        }
        blur_all(*term.lattice, shape_, term.vertices.data());
        for (const Block& at : walk_) {
            message(term, at, false);
            tell(term, at, -1.0f);
        }
    }

    // Adds `sign` times the term's message in f_ to the block's logits.
    void tell(const Term& term, const Block& at, float sign) {
        float *logits = &unary_[at.position * width_], *f = f_.data();
        for (int i = 0; i < at.count * width_; ++i) f[i] *= sign;
        if (!term.potts()) return mix(term.mixing, at.count, nullptr, f, logits);
        for (int p = 0; p < at.count; ++p) {
            float all = 0;
            for (int l = 0; l < lanes_ && !WHOLE; ++l) all += f[p * width_ + l];
            for (int l = 0; l < lanes_; ++l) logits[p * width_ + l] += f[p * width_ + l] + all;
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
            for (int p = 0; p < at.count && !WHOLE; ++p) q[lanes_ * n + at.raster + p] = std::max(left[p], 0.0f);
        }
    }

    const Field& field_;
    Shape shape_;
    int width_, lanes_;
    std::vector<Block> walk_;              // what is still in play
    std::vector<Term> terms_;
    Array<float> unary_, fresh_;           // by position: logits, the new Q
    Array<float> q_;                       // by raster
    Array<float> t_, f_, q_block_, line_;  // of one block: logits, messages, Q, the Gaussian's scratch
};

// q: float32 [L, N]. Returns the iterations done.
inline int infer(const Field& field, const Unary& unary, float* q, const Inference& inference, bool resume) {
    const auto run = [&](auto shape, auto whole) {
        return MeanField<decltype(shape), whole.value>(field, shape).run(unary, q, inference, resume);
    };
    const std::true_type whole;
    const std::false_type less_one;
    const int labels = field.labels;
    if (labels == 1) return std::fill_n(q, field.grid.pixels(), 1.0f), 0;
    if (labels == 2) return run(Shape<1, 1>(1), less_one);
    if (labels == 3) return run(Shape<2, 1>(2), less_one);
    if (labels == 4) return run(Shape<4, 1>(4), whole);
    if (labels == 5) return run(Shape<4, 1>(4), less_one);
    if (labels <= 8) return run(Shape<8, 1>(8), whole);
    if (labels == 9) return run(Shape<8, 1>(8), less_one);
    if (labels <= 16) return run(Shape<16, 1>(16), whole);
    if (labels == 17) return run(Shape<16, 1>(16), less_one);
    if (labels <= 24) return run(Shape<8, 3>(24), whole);
    return run(Shape<8, 0>(labels), whole);
}

}  // namespace densemask::ISA
