// Which vertices are neighbours along each axis.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "table.hpp"

namespace densemask::ISA {

// Vertices that are linked along one axis, as chains of 2, 3, 4 or more neighbours.
struct Chains {
    Array<uint32_t> of[3];
    Array<uint32_t> longer;  // length, vertices, length, vertices, ...
};

// One merge of the sorted keys with themselves, `step` apart. next[v]: the neighbour ahead of vertex v, or `count`.
template <class Key> struct Merge {
    const Key* keys;
    uint32_t count;
    Key step;
    Array<uint32_t> next;
    Array<uint8_t> has_previous;
    uint32_t i = 0, t = 0;

    Merge(const Sorted<Key>& sorted, int64_t step)
        : keys(sorted.keys.data()), count(sorted.count), step(static_cast<Key>(std::abs(step))),
          next(count + 1), has_previous(count + 1) {
        next[count] = count;
        std::fill(has_previous.begin(), has_previous.end(), uint8_t(0));
    }
    bool more() const { return i < count; }
    void advance() {
        const Key wanted = keys[i] + step, found = keys[t];
        const bool met = wanted == found;
        next[i] = met ? t : count;
        has_previous[t] |= met;
        i += wanted <= found;
        t += found <= wanted;
    }
};

// The chains of an axis, each from the vertex without one before it, in the order of their first vertices.
inline Chains chains_of(const Array<uint32_t>& next, const Array<uint8_t>& has_previous) {
    const uint32_t none = static_cast<uint32_t>(next.size() - 1);
    Array<uint32_t> heads(none), found(size_t(none) + 4);
    size_t open = 0;
    for (uint32_t v = 0; v < none; ++v) heads[open] = v, open += (next[v] != none) & !has_previous[v];
    const auto copied = [](const uint32_t* from, size_t size) {
        Array<uint32_t> to(size);
        std::copy_n(from, size, to.data());
        return to;
    };
    Chains chains;
    for (int links = 1; links <= 3; ++links) {  // chains that end here are taken, the others' heads stay; no branches
        size_t taken = 0, left = 0;
        for (size_t k = 0; k < open; ++k) {
            uint32_t v = heads[k];
            found[taken] = v;
            for (int link = 1; link <= links; ++link) found[taken + link] = v = next[v];
            const bool ends = next[v] == none;
            taken += ends ? links + 1 : 0;
            heads[left] = heads[k];
            left += !ends;
        }
        chains.of[links - 1] = copied(found.data(), taken);
        open = left;
    }
    std::vector<uint32_t> longer;
    for (size_t k = 0; k < open; ++k) {
        const size_t at = longer.size();
        longer.push_back(0);
        for (uint32_t v = heads[k]; v != none; v = next[v]) longer.push_back(v);
        longer[at] = static_cast<uint32_t>(longer.size() - at - 1);
    }
    chains.longer = copied(longer.data(), longer.size());
    return chains;
}

template <class Key> std::vector<Chains> axes_of(const Sorted<Key>& sorted, const int64_t* step, int d) {
    std::vector<Chains> axes;
    // Three at a time: a merge is one long chain of dependent loads, and they do not depend on each other.
    for (int first = 0; first <= d; first += 3) {
        const int last = std::min(first + 2, d);
        Merge<Key> a(sorted, step[first]), b(sorted, step[std::min(first + 1, last)]), c(sorted, step[last]);
        while (a.more() && b.more() && c.more()) {
            a.advance();
            b.advance();
            c.advance();
        }
        for (auto* merge : {&a, &b, &c})
            while (merge->more()) merge->advance();
        axes.push_back(chains_of(a.next, a.has_previous));
        if (last > first) axes.push_back(chains_of(b.next, b.has_previous));
        if (last > first + 1) axes.push_back(chains_of(c.next, c.has_previous));
    }
    return axes;
}

}  // namespace densemask::ISA
