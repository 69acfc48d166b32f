// How many steps an inference takes, and how long they are.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "interface.hpp"

namespace densemask::ISA {

// The lengths of the steps in iterations, together as long as the iterations asked for. One of length 1 is an iteration;
// a longer one goes further the same way, which a field near its rest can bear. The first two are iterations, as most
// pixels settle there; so is the last one, which leaves a softmax.
inline std::vector<float> steps_of(const Inference& inference) {
    const int between = std::max(0, inference.iterations - 3), fewer = int(std::ceil(between / inference.longest_step));
    std::vector<float> steps(inference.iterations - between + fewer, 1.0f);
    for (int k = 0; k < fewer; ++k) steps[2 + k] = float(between) / float(fewer);
    return steps;
}

}  // namespace densemask::ISA
