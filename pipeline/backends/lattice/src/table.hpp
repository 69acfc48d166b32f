// Keys of vertices: numbered as they are first met, and sorted.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "memory.hpp"

namespace densemask::ISA {

// Key -> id in order of first insertion; open addressing.
template <class Key> class Table {
public:
    explicit Table(size_t expected) { resize(expected); }

    uint32_t size() const { return size_; }
    const Key* keys() const { return keys_.data(); }
    void forget_places() { slots_.clear(); }  // the keys by id stay
    void prefetch(Key key) const { __builtin_prefetch(&slots_[hash(key)], 1); }

    uint32_t insert(Key key) {
        size_t at = hash(key);
        while ((slots_[at].key != key) & (slots_[at].id != FREE)) at = (at + 1) & mask_;
        const bool is_new = slots_[at].id == FREE;  // without a branch, which nobody could foresee
        const uint32_t id = is_new ? size_ : slots_[at].id;
        slots_[at] = {key, id};
        keys_[size_] = key;
        size_ += is_new;
        return id;
    }

    // Before a block of at most `count` insertions: keeps the table at most 5/8 full.
    void reserve(size_t count) {
        if (size_ + count <= (mask_ + 1) / 8 * 5) return;
        resize((mask_ + 1) * 2);
        for (uint32_t id = 0; id < size_; ++id) {
            size_t at = hash(keys_[id]);
            while (slots_[at].id != FREE) at = (at + 1) & mask_;
            slots_[at] = {keys_[id], id};
        }
    }

private:
    static constexpr uint32_t FREE = 0xffffffffu;
    struct Slot {
        Key key;
        uint32_t id;
    };

    size_t hash(Key key) const { return static_cast<size_t>((static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15ull) >> shift_); }

    void resize(size_t slots) {
        int bits = 12;
        while ((size_t(1) << bits) < slots) ++bits;
        Array<Slot> fresh(size_t(1) << bits);
        for (auto& slot : fresh) slot.id = FREE;
        slots_.swap(fresh);
        mask_ = (size_t(1) << bits) - 1;
        shift_ = 64 - bits;
        Array<Key> keys((size_t(1) << bits) / 8 * 5 + 1);
        std::copy_n(keys_.data(), size_, keys.data());
        keys_.swap(keys);
    }

    Array<Slot> slots_;
    Array<Key> keys_;  // by id
    size_t mask_ = 0;
    int shift_ = 0;
    uint32_t size_ = 0;
};

// Keys in ascending order, and the id of each; behind them a sentinel and the count.
template <class Key> struct Sorted {
    Array<Key> keys;
    Array<uint32_t> ids;
    uint32_t count;

    Sorted(const Table<Key>& table, double cells) : keys(table.size() + 1), ids(table.size() + 1), count(table.size()) {
        constexpr int BITS = 11, BUCKETS = 1 << BITS;
        struct Pair {
            Key key;
            uint32_t id;
        };
        Array<Pair> from(count), to(count);
        for (uint32_t i = 0; i < count; ++i) from[i] = {table.keys()[i], i};
        for (int shift = 0; shift < int(sizeof(Key)) * 8 && std::ldexp(1.0, shift) <= cells; shift += BITS) {
            uint32_t start[BUCKETS + 1] = {};
            for (uint32_t i = 0; i < count; ++i) ++start[((from[i].key >> shift) & (BUCKETS - 1)) + 1];
            for (int b = 0; b < BUCKETS; ++b) start[b + 1] += start[b];
            for (uint32_t i = 0; i < count; ++i) to[start[(from[i].key >> shift) & (BUCKETS - 1)]++] = from[i];
            from.swap(to);
        }
        for (uint32_t i = 0; i < count; ++i) keys[i] = from[i].key, ids[i] = from[i].id;
        keys[count] = std::numeric_limits<Key>::max();
        ids[count] = count;
    }
};

}  // namespace densemask::ISA
