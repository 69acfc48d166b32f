// What the Python module sees of the engine; one implementation an instruction set, chosen when the module is loaded.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "grid.hpp"

namespace densemask {

enum class Normalization { none, before, after, symmetric };

struct Inference {
    int iterations;
    double stop_when_unchanged;  // share of pixels of which an iteration moves a probability by over 0.02; 0: never
    double settled_above;        // pixels whose most probable label is above this leave the iteration; 0: never
    double longest_step = 1;     // in iterations; longer ones go as far in fewer
};

struct Deviations {
    float y, x, red, green, blue;
};

// Where the labels' energies lie, or the probabilities of which they are the negative logarithms.
struct Unary {
    const float* values;
    std::vector<int64_t> planes;  // by label: the index of its plane of pixels in `values`
    bool probabilities = false;
    float floor = 0;  // of probabilities
};

class LatticeFilter {
public:
    virtual ~LatticeFilter() = default;
    virtual Grid grid() const = 0;
    virtual uint32_t vertices() const = 0;
    // in, out: [channels, pixels] in raster order; the filter as it is, or with its axes reversed (its transpose).
    virtual void apply(const float* in, int channels, bool reversed, float* out) const = 0;
};

class DenseField {
public:
    virtual ~DenseField() = default;
    // matrix: empty for Potts (message -weight * F), else symmetric [labels, labels] (message matrix * F).
    virtual void add_lattice(std::shared_ptr<const LatticeFilter> lattice, float weight, std::vector<float> matrix,
                             Normalization normalization) = 0;
    virtual void add_gaussian(double y_deviation, double x_deviation, float weight, std::vector<float> matrix,
                              Normalization normalization) = 0;
    // q: [labels, pixels]. Starts from q where `resume`. Returns the iterations done.
    virtual int infer(const Unary& unary, float* q, Inference inference, bool resume) const = 0;
};

struct Engine {
    const char* name;
    // features: [pixels, d]
    std::shared_ptr<LatticeFilter> (*lattice)(const float* features, int d, Grid grid);
    // rgb: [pixels, 3]; the features are (x, y, r, g, b) over their deviations
    std::shared_ptr<LatticeFilter> (*bilateral)(const uint8_t* rgb, Grid grid, Deviations deviations);
    std::unique_ptr<DenseField> (*field)(int labels, Grid grid);
};

namespace baseline { extern const Engine engine; }
namespace avx2 { extern const Engine engine; }
namespace avx512 { extern const Engine engine; }

}  // namespace densemask
