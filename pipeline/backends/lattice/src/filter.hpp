// Splat, blur and slice: the three linear maps of the lattice filter, for vectors of `Shape::width` labels a pixel.
#pragma once
#include "lattice.hpp"

namespace densemask::ISA {

constexpr int MAX_LABELS = 256;

// W labels a vector, C vectors a pixel; C = 0: as many as `chunks` says.
template <int W, int C> struct Shape {
    typedef typename Lanes<W>::type Vector;
    static constexpr int lanes = W, most_chunks = C ? C : MAX_LABELS / W;
    int chunks;

    explicit Shape(int labels) : chunks(C ? C : (labels + W - 1) / W) {}
    int count() const { return C ? C : chunks; }
    int width() const { return W * count(); }
};

template <class Shape> inline auto* vectors(Shape, float* p) { return reinterpret_cast<typename Shape::Vector*>(p); }
template <class Shape> inline auto* vectors(Shape, const float* p) {
    return reinterpret_cast<const typename Shape::Vector*>(p);
}

// vertex[corner] += weight * scale * value for the pixels of a block. scale: [count]; values: [count, width].
template <int D, class Shape>
void splat(const Lattice& lattice, Shape shape, const Block& at, const float* scale, const float* values, float* vertices) {
    const int corners = (D ? D : lattice.d) + 1;
    const uint32_t* corner = &lattice.corner[size_t(at.position) * corners];
    const float* weight = &lattice.weight[size_t(at.position) * corners];
    const auto* value = vectors(shape, values);
    auto* vertex = vectors(shape, vertices);
    const size_t stride = shape.count();
    for (int p = 0; p < at.count; ++p, value += stride, corner += corners, weight += corners)
        for (size_t c = 0; c < stride; ++c) {
            const auto scaled = value[c] * scale[p];
            for (int k = 0; k < corners; ++k) vertex[corner[k] * stride + c] += scaled * weight[k];
        }
}

// value = scale * sum over corners of weight * vertex[corner], or added to what is there.
template <int D, bool ADD, class Shape>
void slice(const Lattice& lattice, Shape shape, const Block& at, const float* scale, const float* vertices, float* values) {
    const int corners = (D ? D : lattice.d) + 1;
    const uint32_t* corner = &lattice.corner[size_t(at.position) * corners];
    const float* weight = &lattice.weight[size_t(at.position) * corners];
    const auto* vertex = vectors(shape, vertices);
    auto* value = vectors(shape, values);
    const size_t stride = shape.count();
    for (int p = 0; p < at.count; ++p, value += stride, corner += corners, weight += corners)
        for (size_t c = 0; c < stride; ++c) {
            auto sum = vertex[corner[0] * stride + c] * weight[0];
            for (int k = 1; k < corners; ++k) sum += vertex[corner[k] * stride + c] * weight[k];
            value[c] = ADD ? value[c] + sum * scale[p] : sum * scale[p];
        }
}

constexpr int AHEAD = 64;  // how many vertices ahead of the walk to ask memory for

// vertex += 0.5 * (one neighbour + the other), in place: a chain's old values are at hand as it is walked.
template <class Shape> void blur(const Chains& chains, Shape shape, float* vertices) {
    typedef typename Shape::Vector Vector;
    Vector* v = vectors(shape, vertices);
    const size_t stride = shape.count();
    const auto& [pairs, triples, fours] = chains.of;
    const auto fetch = [&](const Array<uint32_t>& of, size_t i, int count) {
        if (i + AHEAD + count > of.size()) return;
        for (int k = 0; k < count; ++k) __builtin_prefetch(&v[of[i + AHEAD + k] * stride], 1);
    };
    for (size_t i = 0; i < pairs.size(); i += 2) {
        fetch(pairs, i, 2);
        for (size_t c = 0; c < stride; ++c) {
            Vector &a = v[pairs[i] * stride + c], &b = v[pairs[i + 1] * stride + c];
            const Vector x = a, y = b;
            a = x + 0.5f * y;
            b = y + 0.5f * x;
        }
    }
    for (size_t i = 0; i < triples.size(); i += 3) {
        fetch(triples, i, 3);
        for (size_t c = 0; c < stride; ++c) {
            Vector &a = v[triples[i] * stride + c], &b = v[triples[i + 1] * stride + c], &e = v[triples[i + 2] * stride + c];
            const Vector x = a, y = b, z = e;
            a = x + 0.5f * y;
            b = y + 0.5f * (x + z);
            e = z + 0.5f * y;
        }
    }
    for (size_t i = 0; i < fours.size(); i += 4) {
        fetch(fours, i, 4);
        for (size_t c = 0; c < stride; ++c) {
            Vector &a = v[fours[i] * stride + c], &b = v[fours[i + 1] * stride + c], &e = v[fours[i + 2] * stride + c],
                   &f = v[fours[i + 3] * stride + c];
            const Vector x = a, y = b, z = e, u = f;
            a = x + 0.5f * y;
            b = y + 0.5f * (x + z);
            e = z + 0.5f * (y + u);
            f = u + 0.5f * z;
        }
    }
    for (size_t i = 0; i < chains.longer.size();) {
        const uint32_t length = chains.longer[i];
        fetch(chains.longer, i + 1, length);
        const uint32_t* chain = &chains.longer[i + 1];
        for (size_t c = 0; c < stride; ++c) {
            Vector before{}, here = v[chain[0] * stride + c];
            for (uint32_t k = 0; k + 1 < length; ++k) {
                const Vector after = v[chain[k + 1] * stride + c];
                v[chain[k] * stride + c] = here + 0.5f * (before + after);
                before = here;
                here = after;
            }
            v[chain[length - 1] * stride + c] = here + 0.5f * before;
        }
        i += length + 1;
    }
}

template <class Shape> void blur_all(const Lattice& lattice, Shape shape, float* vertices, bool reversed = false) {
    for (int axis = 0; axis <= lattice.d; ++axis)
        blur(lattice.axes[reversed ? lattice.d - axis : axis], shape, vertices);
}

template <class Shape>
void splat_block(const Lattice& lattice, Shape shape, const Block& at, const float* scale, const float* values, float* vertices) {
    switch (lattice.d) {
        case 2: return splat<2>(lattice, shape, at, scale, values, vertices);
        case 5: return splat<5>(lattice, shape, at, scale, values, vertices);
        default: return splat<0>(lattice, shape, at, scale, values, vertices);
    }
}

template <bool ADD, class Shape>
void slice_block(const Lattice& lattice, Shape shape, const Block& at, const float* scale, const float* vertices, float* values) {
    switch (lattice.d) {
        case 2: return slice<2, ADD>(lattice, shape, at, scale, vertices, values);
        case 5: return slice<5, ADD>(lattice, shape, at, scale, vertices, values);
        default: return slice<0, ADD>(lattice, shape, at, scale, vertices, values);
    }
}

// after * L(before), by position: the filter of one lane. Either scale may be a single block of equal values (stride 0).
struct Scale {
    const float* values;
    int64_t stride;
    const float* at(int64_t position) const { return values + position * stride; }
};

inline Array<float> filter_lane(const Lattice& lattice, Scale before, Scale after) {
    const Shape<1, 1> shape(1);
    Array<float> vertices(lattice.vertices), ones(BLOCK), out(lattice.grid.pixels());
    std::fill(vertices.begin(), vertices.end(), 0.0f);
    std::fill(ones.begin(), ones.end(), 1.0f);
    for (int64_t b = 0; b < lattice.grid.blocks(); ++b) {
        const Block at = lattice.grid.block(b);
        splat_block(lattice, shape, at, before.at(at.position), ones.data(), vertices.data());
    }
    blur_all(lattice, shape, vertices.data());
    for (int64_t b = 0; b < lattice.grid.blocks(); ++b) {
        const Block at = lattice.grid.block(b);
        slice_block<false>(lattice, shape, at, after.at(at.position), vertices.data(), &out[at.position]);
    }
    return out;
}

}  // namespace densemask::ISA
