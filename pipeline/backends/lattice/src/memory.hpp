// Scratch memory that a thread keeps from one image to the next: fresh pages cost more than many of the passes over them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace densemask {

class Pool {
public:
    static constexpr size_t KEPT_BYTES = size_t(256) << 20, HUGE_PAGE = size_t(2) << 20;

    ~Pool() {
        for (auto& block : free_) std::free(block.first);
    }

    // A block of at least `bytes`, the smallest that fits; its true size comes back in `bytes`.
    void* take(size_t& bytes) {
        size_t best = free_.size();
        for (size_t i = 0; i < free_.size(); ++i)
            if (free_[i].second >= bytes && free_[i].second <= 2 * bytes &&
                (best == free_.size() || free_[i].second < free_[best].second))
                best = i;
        if (best < free_.size()) {
            auto block = free_[best];
            free_[best] = free_.back();
            free_.pop_back();
            kept_ -= block.second;
            bytes = block.second;
            return block.first;
        }
        const size_t page = bytes < HUGE_PAGE ? 4096 : HUGE_PAGE;
        bytes = (bytes + page - 1) & ~(page - 1);
        void* fresh = std::aligned_alloc(page, bytes);
        if (!fresh) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        if (page == HUGE_PAGE) madvise(fresh, bytes, MADV_HUGEPAGE);  // random access over small pages misses the TLB
#endif
        return fresh;
    }

    void give(void* block, size_t bytes) noexcept {
        if (kept_ + bytes > KEPT_BYTES || free_.size() >= 64) {
            std::free(block);
            return;
        }
        try {
            free_.emplace_back(block, bytes);
            kept_ += bytes;
        } catch (...) {
            std::free(block);
        }
    }

    static Pool& of_this_thread() {
        thread_local Pool pool;
        return pool;
    }

private:
    std::vector<std::pair<void*, size_t>> free_;
    size_t kept_ = 0;
};

// A fixed-size array of plain values, not initialised.
template <class T> class Array {
public:
    Array() = default;
    explicit Array(size_t size) : size_(size), bytes_(size * sizeof(T) + 64) {
        data_ = static_cast<T*>(Pool::of_this_thread().take(bytes_));
    }
    Array(Array&& other) noexcept { swap(other); }
    Array& operator=(Array&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Array() {
        if (data_) Pool::of_this_thread().give(data_, bytes_);
    }
    void swap(Array& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(bytes_, other.bytes_);
    }
    void clear() { Array().swap(*this); }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }

private:
    T* data_ = nullptr;
    size_t size_ = 0, bytes_ = 0;
};

}  // namespace densemask
