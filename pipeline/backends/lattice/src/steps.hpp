// How many steps an inference takes, and how long they are.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "interface.hpp"

namespace densemask::ISA {

constexpr float FURTHER = 4.0f / 3.0f;  // than the iterations that a step is worth beyond one

// The lengths of the steps that are worth the iterations asked for. One of length 1 is an iteration; a longer one goes
// further the same way, which a field near its rest can bear, and further than its worth, for where labels still give way
// to others each iteration would go further than the one before. The first two are iterations, as most pixels settle
// there; so is the last one, which leaves a softmax.
inline std::vector<float> steps_of(const Inference& inference) {
    const int between = std::max(0, inference.iterations - 3), fewer = int(std::ceil(between / inference.longest_step));
    std::vector<float> steps(inference.iterations - between + fewer, 1.0f);
    for (int k = 0; k < fewer; ++k) steps[2 + k] = 1 + (float(between) / float(fewer) - 1) * FURTHER;
    return steps;
}

}  // namespace densemask::ISA
