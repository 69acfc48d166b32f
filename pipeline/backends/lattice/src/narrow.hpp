// A lattice cut down to the pixels that are still in play.
#pragma once
#include <vector>

#include "lattice.hpp"

namespace densemask::ISA {

// A run of pixels that stays: the block that it was, and the one that it becomes.
struct Cut {
    Block from, to;
};

// The chains between vertices that stay, by their new numbers (NONE: it goes).
inline Chains narrowed(const Chains& whole, const Array<uint32_t>& fresh) {
    size_t most = whole.longer.size();
    for (const auto& chains : whole.of) most += chains.size();
    Array<uint32_t> found[4];
    uint32_t *ends[4], length = 0;
    for (int k = 0; k < 4; ++k) found[k] = Array<uint32_t>(most + 4), ends[k] = found[k].data();
    Array<uint32_t> chain(most + 4);
    const auto end_of_chain = [&] {
        if (length > 4) *ends[3]++ = length;
        if (length >= 2) {
            uint32_t*& to = ends[std::min(length, 5u) - 2];
            to = std::copy_n(chain.data(), length, to);
        }
        length = 0;
    };
    const auto walk = [&](const uint32_t* vertices, size_t count) {
        for (size_t k = 0; k < count; ++k)
            if (const uint32_t vertex = fresh[vertices[k]]; vertex != NONE)
                chain[length++] = vertex;
            else
                end_of_chain();
        end_of_chain();
    };
    for (size_t i = 0; i < whole.of[0].size(); i += 2) {  // most are pairs: without a branch
        const uint32_t one = fresh[whole.of[0][i]], other = fresh[whole.of[0][i + 1]];
        ends[0][0] = one, ends[0][1] = other;
        ends[0] += (one != NONE) & (other != NONE) ? 2 : 0;
    }
    for (size_t k = 1; k < 3; ++k)
        for (size_t i = 0; i < whole.of[k].size(); i += k + 2) walk(&whole.of[k][i], k + 2);
    for (size_t i = 0; i < whole.longer.size(); i += whole.longer[i] + 1) walk(&whole.longer[i + 1], whole.longer[i]);
    const auto copied = [&](int k) {
        Array<uint32_t> to(ends[k] - found[k].data());
        std::copy_n(found[k].data(), to.size(), to.data());
        return to;
    };
    return {{copied(0), copied(1), copied(2)}, copied(3)};
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
        const uint32_t* old = &whole.corner[from.position * corners];
        uint32_t* corner = &part.corner[to.position * corners];
        for (size_t c = 0; c < count; ++c) {
            uint32_t& vertex = fresh[old[c]];
            if (vertex == NONE) vertex = part.vertices++;
            corner[c] = vertex;
        }
        std::copy_n(&whole.weight[from.position * corners], count, &part.weight[to.position * corners]);
    }
    for (const Chains& chains : whole.axes) part.axes.push_back(narrowed(chains, fresh));
    return part;
}

}  // namespace densemask::ISA
