// A lattice cut down to the pixels that are still in play.
#pragma once
#include <vector>

#include "lattice.hpp"

namespace densemask::ISA {

// A run of pixels that stays: where its first pixel was in the walk, and the block that it becomes.
struct Cut {
    int64_t from;
    Block to;
};

// The chains between vertices that stay, by their new numbers (NONE: it goes).
inline Chains narrowed(const Chains& whole, const Array<uint32_t>& fresh) {
    std::vector<uint32_t> of[3], longer, chain;
    const auto end_of_chain = [&] {
        const size_t length = chain.size();
        if (length >= 2) {
            auto& to = length <= 4 ? of[length - 2] : longer;
            if (length > 4) to.push_back(static_cast<uint32_t>(length));
            to.insert(to.end(), chain.begin(), chain.end());
        }
        chain.clear();
    };
    const auto walk = [&](const uint32_t* vertices, size_t length) {
        for (size_t k = 0; k < length; ++k)
            if (const uint32_t vertex = fresh[vertices[k]]; vertex != NONE)
                chain.push_back(vertex);
            else
                end_of_chain();
        end_of_chain();
    };
    for (size_t k = 0; k < 3; ++k)
        for (size_t i = 0; i < whole.of[k].size(); i += k + 2) walk(&whole.of[k][i], k + 2);
    for (size_t i = 0; i < whole.longer.size(); i += whole.longer[i] + 1) walk(&whole.longer[i + 1], whole.longer[i]);
    Chains part;
    for (int k = 0; k < 3; ++k) {
        part.of[k] = Array<uint32_t>(of[k].size());
        std::copy(of[k].begin(), of[k].end(), part.of[k].begin());
    }
    part.longer = Array<uint32_t>(longer.size());
    std::copy(longer.begin(), longer.end(), part.longer.begin());
    return part;
}

// The corners of these pixels, the vertices that they touch, and the links between those.
inline Lattice narrowed(const Lattice& whole, const std::vector<Cut>& cuts, size_t pixels) {
    const size_t corners = whole.d + 1;
    Lattice part;
    part.d = whole.d;
    part.grid = whole.grid;
    part.corner = Array<uint32_t>(pixels * corners);
    part.weight = Array<float>(pixels * corners);
    Array<uint32_t> fresh(whole.vertices);
    std::fill(fresh.begin(), fresh.end(), NONE);
    for (const auto& [from, to] : cuts) {
        const size_t count = to.count * corners;
        const uint32_t* old = &whole.corner[from * corners];
        uint32_t* corner = &part.corner[to.position * corners];
        for (size_t c = 0; c < count; ++c) {
            uint32_t& vertex = fresh[old[c]];
            if (vertex == NONE) vertex = part.vertices++;
            corner[c] = vertex;
        }
        std::copy_n(&whole.weight[from * corners], count, &part.weight[to.position * corners]);
    }
    for (const Chains& chains : whole.axes) part.axes.push_back(narrowed(chains, fresh));
    return part;
}

}  // namespace densemask::ISA
