// The order in which pixels are walked: strips of 64 columns, so that the lattice vertices of a walk stay in cache.
#pragma once
#include <algorithm>
#include <cstdint>

namespace densemask {

constexpr int BLOCK = 64;

// A run of pixels of one row: where it lies in the image, and where in the walk.
struct Block {
    int64_t raster, position;
    int count;
};

struct Grid {
    int64_t height, width;

    int64_t pixels() const { return height * width; }
    int64_t blocks() const { return (width + BLOCK - 1) / BLOCK * height; }
    Block block(int64_t index) const {
        const int64_t strip = index / height, row = index % height;
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, width - strip * BLOCK));
        return {row * width + strip * BLOCK, strip * BLOCK * height + row * count, count};
    }
};

}  // namespace densemask
