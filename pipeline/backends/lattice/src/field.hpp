// Mean-field inference in a fully connected CRF (Kraehenbuehl and Koltun, NIPS 2011, Algorithm 1).
//
// Per iteration: one pass over the pixels that gathers the messages and takes the softmax, one that splats, and the blur.
// Q sums to one and the filters are linear, so the last label needs no lane of its own. Of a whole image only Q is kept,
// in 16 bits, the old one and the new one; the unary is read again in each pass.
//
// Most pixels settle at once, many with their unary. They retire: their Q stays. Once most have, the lattice is cut down to
// the others: what all have said until then stays in their logits, and only changes of Q since then travel over the
// vertices and links that are left.
#pragma once
#include <memory>
#include <numeric>
#include <vector>

#include "narrow.hpp"
#include "pairwise.hpp"
#include "softmax.hpp"
#include "steps.hpp"
#include "unary.hpp"

namespace densemask::ISA {

constexpr double WORTH_NARROWING = 0.4;  // of the lattice's pixels: with more in play, cutting costs more than it saves

// The whole inference for one shape of lanes.
template <class Shape, bool WHOLE> class MeanField {
public:
    MeanField(const Field& field, Shape shape, const Unary& unary, float* q)
        : field_(field), shape_(shape), width_(shape.width()), lanes_(field.labels - !WHOLE), unary_(unary), result_(q) {
        const Grid grid = field.grid;
        const size_t n = grid.pixels();
        for (int64_t b = 0; b < grid.blocks(); ++b) walk_.push_back(grid.block(b));
        whole_ = walk_;
        open_.assign(cells_of_row() * grid.height, 0);
        int reach = 0;
        if (!WHOLE) constant_ = Array<float>(n), std::fill(constant_.begin(), constant_.end(), 0.0f);
        for (const Pairwise& given : field.terms) {
            Term term{&given, mixing_of(given, field.labels, WHOLE, width_), given.lattice, given.before.data(), given.after.data()};
            term.ones = Array<float>(WHOLE || term.potts() ? 0 : n);
            std::copy_n(given.ones.data(), term.ones.size(), term.ones.data());
            for (size_t p = 0; p < n && !WHOLE && term.potts(); ++p) constant_[p] -= given.ones[p];
            reach = std::max(reach, given.columns.radius);
            terms_.push_back(std::move(term));
        }
        for (auto* block : {&t_, &f_, &q_}) *block = Array<float>(size_t(BLOCK) * width_ + WIDE);
        for (auto* planes : {&x_, &f_planes_}) *planes = Array<float>(size_t(std::max(planes_of(shape), field.labels)) * BLOCK);
        std::fill(x_.begin(), x_.end(), 0.0f);  // lanes without a label stay zero
        line_ = Array<Level>(size_t(BLOCK + 2 * reach) * width_ + TOGETHER);
        for (auto* image : {&now_, &next_}) *image = Array<Level>(n * width_ + TOGETHER);
    }

    // Starts from the result where `resume`. Returns how many steps it took.
    int run(const Inference& inference, bool resume) {
        const std::vector<float> steps = steps_of(inference);
        const bool retiring = inference.settled_above > 0;
        start(resume, steps.empty(), float(inference.settled_above));
        if (!steps.empty() && retiring) retire(), narrow();
        size_t done = 0;
        while (done < steps.size()) {
            const bool last = done + 1 == steps.size();
            const int64_t moved = step(steps[done], inference, last);
            ++done;
            if (!last && double(moved) < inference.stop_when_unchanged * double(field_.grid.pixels())) break;
            if (!last && retiring) retire(), narrow();
        }
        if (done < steps.size())
            for (const Block& at : walk_) write_kept(at);
        return int(done);
    }

private:
    int64_t cells_of_row() const { return (field_.grid.width + CELL - 1) / CELL; }
    uint8_t* open_of(const Block& at) {
        const int64_t width = field_.grid.width;
        return &open_[at.raster / width * cells_of_row() + at.raster % width / CELL];
    }

    // Q of the unary alone, or the one given, splatted; into the result where that is all.
    void start(bool resume, bool last, float settled) {
        const int64_t n = field_.grid.pixels();
        for (const Block& at : walk_) {
            if (resume)
                for (int l = 0; l < lanes_; ++l) std::copy_n(&result_[l * n + at.raster], at.count, &x_[l * BLOCK]);
            else {
                values_of(unary_, at, field_.grid, x_.data());
                q_of(unary_.probabilities, field_.labels, at.count, x_.data());
            }
            if (settled > 0) mark_open<WHOLE>(lanes_, at.count, x_.data(), settled, open_of(at));
            last ? write(at) : keep(at, now_);
        }
        if (!last) splat_terms();
    }

    // Q in x_, into an image of levels.
    void keep(const Block& at, Array<Level>& image) {
        planes_to_lanes(shape_, x_.data(), at.count, q_.data());
        lanes_to_levels(q_.data(), at.count * width_, &image[at.raster * width_]);
    }

    void splat_terms() {
        for (Term& term : terms_)
            if (term.lattice) splat_term(term);
    }

    void splat_term(Term& term) {
        if (!term.vertices.size()) term.vertices = Array<float>(size_t(term.lattice->vertices) * width_);
        std::fill(term.vertices.begin(), term.vertices.end(), 0.0f);
        for (const Block& at : whole_)
            splat_block(*term.lattice, shape_, at, &term.before[at.position], unsaid(at), term.vertices.data());
        blur_all(*term.lattice, shape_, term.vertices.data());
    }

    const float* from_levels(const Block& at) {
        levels_to_lanes(&now_[at.raster * width_], at.count * width_, q_.data());
        return q_.data();
    }

    // Q less what of it is in the logits.
    const float* unsaid(const Block& at) {
        if (!said_.size()) return from_levels(at);
        levels_between(&now_[at.raster * width_], &said_[at.position * width_], at.count * width_, q_.data());
        return q_.data();
    }

    // One step of this length; how many pixels it moved, if that is asked. The last one goes into the result.
    int64_t step(float length, const Inference& inference, bool last) {
        int64_t moved = 0;
        for (const Block& at : walk_) {
            update(at, float(inference.settled_above));
            if (length != 1 || inference.stop_when_unchanged > 0) {
                lanes_to_planes(shape_, from_levels(at), at.count, f_planes_.data());
                moved += go_beyond(lanes_, at.count, f_planes_.data(), length - 1, x_.data());
            }
            last ? write(at) : keep(at, next_);
        }
        if (!last) now_.swap(next_), splat_terms();
        return moved;
    }

    // The block's new Q into x_.
    void update(const Block& at, float settled) {
        logits_of_block(at);
        bool potts = false;
        for (const Term& term : terms_) {
            if (term.potts()) continue;
            message(term, at, false);
            std::fill_n(t_.data(), at.count * width_, 0.0f);
            mix(term.mixing, at.count, lanes_, width_, WHOLE ? nullptr : &term.ones[at.position], f_.data(), t_.data());
            lanes_to_planes(shape_, t_.data(), at.count, f_planes_.data());
            for (int i = 0; i < lanes_ * BLOCK; ++i) x_[i] += f_planes_[i];
        }
        for (const Term& term : terms_)
            if (term.potts()) message(term, at, std::exchange(potts, true));
        if (potts) lanes_to_planes(shape_, f_.data(), at.count, f_planes_.data());
        potts ? softmax_block<WHOLE, true>(lanes_, at.count, f_planes_.data(), settled, x_.data(), open_of(at))
              : softmax_block<WHOLE, false>(lanes_, at.count, nullptr, settled, x_.data(), open_of(at));
    }

    // The lanes' logits into x_, against the most probable label's or that without a lane: made of the unary, or what a
    // narrowed field has of them.
    void logits_of_block(const Block& at) {
        if (logits_.size()) return lanes_to_planes(shape_, &logits_[at.position * width_], at.count, x_.data());
        values_of(unary_, at, field_.grid, x_.data());
        logits_of<WHOLE>(unary_.probabilities, field_.labels, at.count, x_.data());
        for (int l = 0; l < lanes_ && !WHOLE; ++l)
            for (int p = 0; p < at.count; ++p) x_[l * BLOCK + p] += constant_[at.position + p];
    }

    // The filtered Q of a term into f_, or added to it: of a narrowed lattice what has changed of it.
    void message(const Term& term, const Block& at, bool add) {
        if (term.lattice && !term.vertices.size()) {
            if (!add) std::fill_n(f_.data(), at.count * width_, 0.0f);
        } else if (term.lattice) {
            const float *vertices = term.vertices.data(), *scale = &term.after[at.position];
            add ? slice_block<true>(*term.lattice, shape_, at, scale, vertices, f_.data())
                : slice_block<false>(*term.lattice, shape_, at, scale, vertices, f_.data());
        } else {
            const Pairwise& given = *term.given;
            add ? separable<true>(given.rows, given.columns, given.weight, width_, now_.data(), at, line_.data(), f_.data())
                : separable<false>(given.rows, given.columns, given.weight, width_, now_.data(), at, line_.data(), f_.data());
        }
    }

    // Takes the settled cells out of the walk. Their Q is the result, and what others see in every step.
    void retire() {
        std::vector<Block> stay;
        for (const Block& at : walk_) {
            const uint8_t* open = open_of(at);
            for (int from = 0, to = 0; from < at.count; from = to) {
                while (to < at.count && open[to / CELL] == open[from / CELL]) to = std::min(to + CELL, at.count);
                const Block run{at.raster + from, at.position + from, to - from};
                if (open[from / CELL]) {
                    stay.push_back(run);
                } else {
                    write_kept(run);
                    std::copy_n(&now_[run.raster * width_], run.count * width_, &next_[run.raster * width_]);
                }
            }
        }
        walk_.swap(stay);
    }

    // Cuts the lattices down to the pixels that are in play, if these are few enough for it to be worth it.
    void narrow() {
        const auto pixels = [](const std::vector<Block>& blocks) {
            return std::accumulate(blocks.begin(), blocks.end(), int64_t(0), [](int64_t sum, const Block& at) { return sum + at.count; });
        };
        const int64_t left = pixels(walk_);
        if (double(left) > WORTH_NARROWING * double(pixels(whole_))) return;
        std::vector<Cut> cuts;
        int64_t position = 0;
        for (const Block& at : walk_) cuts.push_back({at, {at.raster, position, at.count}}), position += at.count;
        Array<float> logits((left + WIDE) * width_);  // a block is turned in whole vectors of pixels
        Array<Level> said(left * width_ + TOGETHER);
        walk_.clear();
        for (const auto& [from, to] : cuts) {
            logits_of_block(from);
            planes_to_lanes(shape_, x_.data(), to.count, t_.data());
            std::copy_n(t_.data(), to.count * width_, &logits[to.position * width_]);
            std::copy_n(&now_[to.raster * width_], to.count * width_, &said[to.position * width_]);
            walk_.push_back(to);
        }
        whole_ = walk_;
        logits_.swap(logits);
        said_.swap(said);
        constant_.clear();
        for (Term& term : terms_) narrow_term(term, cuts, left);
    }

    // Cuts the lattice down; what it has said stays in the logits.
    void narrow_term(Term& term, const std::vector<Cut>& cuts, int64_t left) {
        const auto kept = [&](const float* of) {
            Array<float> part(left);
            for (const auto& [from, to] : cuts) std::copy_n(&of[from.position], to.count, &part[to.position]);
            return part;
        };
        if (term.ones.size()) term.ones = kept(term.ones.data());
        if (!term.lattice) return;
        for (const auto& [from, to] : cuts) {
            message(term, from, false);
            add_to_logits(term, to);
        }
        term.vertices.clear();  // before the narrowed lattice takes memory
        term.own_before = kept(term.before);
        term.own_after = kept(term.after);
        term.before = term.own_before.data(), term.after = term.own_after.data();
        term.lattice = std::make_shared<Lattice>(narrowed(*term.lattice, cuts, left));
    }

    // Adds the term's message in f_ to the block's logits.
    void add_to_logits(const Term& term, const Block& at) {
        float* logits = &logits_[at.position * width_];
        const float* f = f_.data();
        if (!term.potts()) return mix(term.mixing, at.count, lanes_, width_, nullptr, f, logits);
        for (int p = 0; p < at.count; ++p) {
            float all = 0;
            for (int l = 0; l < lanes_ && !WHOLE; ++l) all += f[p * width_ + l];
            for (int l = 0; l < lanes_; ++l) logits[p * width_ + l] += f[p * width_ + l] + all;
        }
    }

    // Q in x_ into the result.
    void write(const Block& at) {
        const int64_t n = field_.grid.pixels();
        for (int l = 0; l < lanes_; ++l) std::copy_n(&x_[l * BLOCK], at.count, &result_[l * n + at.raster]);
        for (int p = 0; p < at.count && !WHOLE; ++p) {
            float left = 1;
            for (int l = 0; l < lanes_; ++l) left -= x_[l * BLOCK + p];
            result_[lanes_ * n + at.raster + p] = std::max(left, 0.0f);
        }
    }
    void write_kept(const Block& at) {
        lanes_to_planes(shape_, from_levels(at), at.count, x_.data());
        if (WHOLE) sum_to_one(lanes_, at.count, x_.data());
        write(at);
    }

    const Field& field_;
    Shape shape_;
    int width_, lanes_;
    const Unary& unary_;
    float* result_;                       // [labels, pixels]
    std::vector<Block> whole_, walk_;     // the lattice's pixels; those in play
    std::vector<Term> terms_;
    Array<Level> now_, next_;             // by raster: Q
    std::vector<uint8_t> open_;           // by cell of each row: not settled yet
    Array<float> constant_;               // by position: of all lanes' logits, what the label without a lane brings
    Array<float> logits_;                 // by position, of a narrowed field
    Array<Level> said_;                   // by position, of a narrowed field: the Q whose messages are in the logits
    Array<float> t_, f_, q_;              // of one block, as lanes: logits, messages, Q
    Array<float> x_, f_planes_;           // of one block, as planes: values, then logits, then Q; messages
    Array<Level> line_;                   // of one block: the Gaussian's scratch
};

// q: float32 [L, N]. Returns the iterations done.
inline int infer(const Field& field, const Unary& unary, float* q, const Inference& inference, bool resume) {
    const auto run = [&](auto shape, auto whole) {
        return MeanField<decltype(shape), whole.value>(field, shape, unary, q).run(inference, resume);
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
    if (labels <= 12) return run(Shape<12, 1>(12), whole);
    if (labels <= 16) return run(Shape<16, 1>(16), whole);
    if (labels == 17) return run(Shape<16, 1>(16), less_one);
    if (labels <= 24) return run(Shape<8, 3>(24), whole);
    return run(Shape<8, 0>(labels), whole);
}

}  // namespace densemask::ISA
