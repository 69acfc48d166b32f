// Keys of vertices: numbered as they are first met, and sorted.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "memory.hpp"
#include "simd.hpp"

namespace densemask::ISA {

// Key -> id in order of first insertion; open addressing by buckets of eight keys, which are compared at once.
template <class Key> class Table {
public:
    explicit Table(size_t expected) { resize(expected); }

    uint32_t size() const { return size_; }
    const Key* keys() const { return keys_.data(); }
    void forget_places() { buckets_.clear(); }  // the keys by id stay
    void prefetch(Key key) const {
        const char* bucket = reinterpret_cast<const char*>(&buckets_[hash(key)]);
        for (size_t line = 0; line < sizeof(Bucket); line += 64) __builtin_prefetch(bucket + line, 1);
    }

    uint32_t insert(Key key) {
        size_t at = hash(key);
        unsigned found, free;
        while (!((found = where(at, key)) | (free = where(at, FREE)))) at = (at + 1) & mask_;
        const int place = __builtin_ctz(found ? found : free);
        const uint32_t id = found ? buckets_[at].ids[place] : size_;
        *(found ? &unused_ : &buckets_[at].keys[place]) = key;  // a key just written is slow to compare with
        buckets_[at].ids[place] = id;
        keys_[size_] = key;
        size_ += !found;
        return id;
    }

    // Before a block of at most `count` insertions: keeps the table at most 5/8 full.
    void reserve(size_t count) {
        const size_t places = (mask_ + 1) * PLACES;
        if (size_ + count <= places / 8 * 5) return;
        resize(places * 2);
        for (uint32_t id = 0; id < size_; ++id) {
            size_t at = hash(keys_[id]);
            unsigned free;
            while (!(free = where(at, FREE))) at = (at + 1) & mask_;
            const int place = __builtin_ctz(free);
            buckets_[at].keys[place] = keys_[id], buckets_[at].ids[place] = id;
        }
    }

private:
    static constexpr Key FREE = std::numeric_limits<Key>::max();  // no vertex's: keys lie below the radix's cells
    static constexpr int PLACES = 8;
    typedef Key Keys __attribute__((vector_size(PLACES * sizeof(Key)), aligned(4), may_alias));
    struct Bucket {
        Key keys[PLACES];
        uint32_t ids[PLACES];
    };

    size_t hash(Key key) const { return static_cast<size_t>((static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15ull) >> shift_); }

    // A bit for each place of a bucket that holds the key.
    unsigned where(size_t bucket, Key key) const {
        Keys keys;
        std::memcpy(&keys, buckets_[bucket].keys, sizeof(keys));
        return bits(__builtin_convertvector(keys == key, i8));
    }

    void resize(size_t places) {
        int log2 = 9;
        while ((size_t(PLACES) << log2) < places) ++log2;
        Array<Bucket> fresh(size_t(1) << log2);
        for (Bucket& bucket : fresh) std::fill_n(bucket.keys, PLACES, FREE);
        buckets_.swap(fresh);
        mask_ = (size_t(1) << log2) - 1;
        shift_ = 64 - log2;
        Array<Key> keys((size_t(PLACES) << log2) / 8 * 5 + 1);
        std::copy_n(keys_.data(), size_, keys.data());
        keys_.swap(keys);
    }

    Array<Bucket> buckets_;
    Array<Key> keys_;  // by id
    Key unused_;
    size_t mask_ = 0;
    int shift_ = 0;
    uint32_t size_ = 0;
};

// Keys in ascending order, a sentinel behind them; and by id the place of each.
template <class Key> struct Sorted {
    Array<Key> keys;
    Array<uint32_t> rank;
    uint32_t count;

    Sorted(const Table<Key>& table, double cells) : keys(table.size() + 1), rank(table.size()), count(table.size()) {
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
        for (uint32_t i = 0; i < count; ++i) keys[i] = from[i].key, rank[from[i].id] = i;
        keys[count] = std::numeric_limits<Key>::max();
    }
};

}  // namespace densemask::ISA
