// Scratch memory that the process keeps from one image to the next: fresh pages cost more than many of the passes over
// them. Large stretches in huge pages, since random access over small ones misses the TLB; taken from the lowest address
// that fits, and joined again when given back, so that one image's arrays lie where the last one's did.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <utility>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace densemask {

class Arena {
public:
    static constexpr size_t LINE = 64, HUGE_PAGE = size_t(2) << 20, STRETCH = size_t(1) << 30, KEPT_BYTES = size_t(256) << 20;

    static size_t rounded(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

    void* take(size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (auto at = free_.begin(); at != free_.end(); ++at)
            if (at->second >= bytes) return cut(at, bytes);
        return cut(free_.insert(fresh(bytes)).first, bytes);
    }

    void give(void* block, size_t bytes) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        auto at = free_.emplace(static_cast<char*>(block), bytes).first;
        if (const auto next = std::next(at); next != free_.end() && joined(at, next)) free_.erase(next);
        if (at != free_.begin())
            if (const auto before = std::prev(at); joined(before, at)) free_.erase(std::exchange(at, before));
        if (at->second > KEPT_BYTES) release(at->first + KEPT_BYTES, at->second - KEPT_BYTES);
    }

    // Never destroyed: arrays may outlive what a process's end destroys.
    static Arena& of_the_process() {
        static Arena* arena = new Arena;
        return *arena;
    }

private:
    typedef std::map<char*, size_t> Blocks;  // address -> bytes

    void* cut(Blocks::iterator at, size_t bytes) {
        char* block = at->first;
        const size_t left = at->second - bytes;
        free_.erase(at);
        if (left) free_.emplace(block + bytes, left);
        return block;
    }

    // Takes the second block into the first if it follows it in the same stretch.
    bool joined(Blocks::iterator first, Blocks::iterator second) {
        if (first->first + first->second != second->first || stretches_.count(second->first)) return false;
        first->second += second->second;
        return true;
    }

#ifdef __linux__
    // Addresses alone: memory comes with the first touch.
    std::pair<char*, size_t> fresh(size_t bytes) {
        const size_t size = std::max(STRETCH, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        void* found = mmap(nullptr, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (found == MAP_FAILED) throw std::bad_alloc();
        char* aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(found) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        madvise(aligned, size, MADV_HUGEPAGE);
        stretches_.insert(aligned);
        return {aligned, size};
    }

    static void release(char* from, size_t bytes) {
        const size_t skipped = (HUGE_PAGE - reinterpret_cast<uintptr_t>(from) % HUGE_PAGE) % HUGE_PAGE;
        if (bytes > skipped + HUGE_PAGE) madvise(from + skipped, (bytes - skipped) / HUGE_PAGE * HUGE_PAGE, MADV_DONTNEED);
    }
#else
    std::pair<char*, size_t> fresh(size_t bytes) {
        char* found = static_cast<char*>(std::aligned_alloc(LINE, bytes));
        if (!found) throw std::bad_alloc();
        stretches_.insert(found);
        return {found, bytes};
    }

    static void release(char*, size_t) {}
#endif

    std::mutex mutex_;
    std::set<char*> stretches_;
    Blocks free_;
};

// A fixed-size array of plain values, not initialised.
template <class T> class Array {
public:
    Array() = default;
    explicit Array(size_t size)
        : data_(static_cast<T*>(Arena::of_the_process().take(Arena::rounded(size * sizeof(T) + 1)))), size_(size) {}
    Array(Array&& other) noexcept { swap(other); }
    Array& operator=(Array&& other) noexcept {
        Array(std::move(other)).swap(*this);
        return *this;
    }
    ~Array() {
        if (data_) Arena::of_the_process().give(data_, Arena::rounded(size_ * sizeof(T) + 1));
    }
    void swap(Array& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
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
    size_t size_ = 0;
};

}  // namespace densemask
