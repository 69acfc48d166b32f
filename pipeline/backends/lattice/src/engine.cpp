// The engine for one instruction set: compiled once for each, with ISA set to its name.
#include "interface.hpp"

#include "field.hpp"

#define DENSEMASK_TEXT(name) #name
#define DENSEMASK_NAME(name) DENSEMASK_TEXT(name)

namespace densemask::ISA {
namespace {

struct GivenFeatures : Features {
    const float* values;
    int64_t pixels;

    void fill(const Block& at, float* out) const override {
        for (int i = 0; i < d; ++i)
            for (int p = 0; p < BLOCK; ++p) out[i * BLOCK + p] = p < at.count ? values[(at.raster + p) * d + i] : 0.0f;
    }

    void range(float* low, float* high) const override {
        std::copy_n(values, d, low);
        std::copy_n(values, d, high);
        float poison = 0;  // a sum with what is not finite is not a number
        for (int64_t p = 0; p < pixels; ++p)
            for (int i = 0; i < d; ++i) {
                const float value = values[p * d + i];
                low[i] = value < low[i] ? value : low[i];
                high[i] = value > high[i] ? value : high[i];
                poison += value * 0.0f;
            }
        if (!(poison == 0)) high[0] = NAN;
    }
};

struct BilateralFeatures : Features {
    const uint8_t* rgb;
    Grid grid;
    Deviations deviations;

    void fill(const Block& at, float* out) const override {
        const int64_t y = at.raster / grid.width, x = at.raster % grid.width;
        const float colours[] = {deviations.red, deviations.green, deviations.blue};
        for (int p = 0; p < BLOCK; ++p) {
            out[p] = float(x + p) / deviations.x;
            out[BLOCK + p] = float(y) / deviations.y;
        }
        for (int c = 0; c < 3; ++c)
            for (int p = 0; p < BLOCK; ++p)
                out[(2 + c) * BLOCK + p] = p < at.count ? float(rgb[(at.raster + p) * 3 + c]) / colours[c] : 0.0f;
    }

    void range(float* low, float* high) const override {
        uint8_t least[3] = {255, 255, 255}, most[3] = {};
        for (int64_t p = 0; p < grid.pixels(); ++p)
            for (int c = 0; c < 3; ++c) least[c] = std::min(least[c], rgb[p * 3 + c]), most[c] = std::max(most[c], rgb[p * 3 + c]);
        const float colours[] = {deviations.red, deviations.green, deviations.blue};
        low[0] = low[1] = 0;
        high[0] = float(grid.width - 1) / deviations.x;
        high[1] = float(grid.height - 1) / deviations.y;
        for (int c = 0; c < 3; ++c) low[2 + c] = float(least[c]) / colours[c], high[2 + c] = float(most[c]) / colours[c];
    }
};

class Filter final : public LatticeFilter {
public:
    Filter(const Features& features, Grid grid) : lattice(std::make_shared<Lattice>(make_lattice(features, grid))) {}

    Grid grid() const override { return lattice->grid; }
    uint32_t vertices() const override { return lattice->vertices; }

    void apply(const float* in, int channels, bool reversed, float* out) const override {
        for (int first = 0; first < channels; first += 8) {
            const int count = std::min(8, channels - first);
            filter_lanes(in + first * grid().pixels(), count, reversed, out + first * grid().pixels());
        }
    }

    std::shared_ptr<const Lattice> lattice;

private:
    void filter_lanes(const float* in, int channels, bool reversed, float* out) const {
        const Shape<8, 1> shape(8);
        const int64_t n = grid().pixels();
        Array<float> vertices(size_t(lattice->vertices) * 8), block(BLOCK * 8), scale(BLOCK);
        std::fill(vertices.begin(), vertices.end(), 0.0f);
        std::fill(block.begin(), block.end(), 0.0f);
        std::fill(scale.begin(), scale.end(), 1.0f);
        for (int64_t b = 0; b < grid().blocks(); ++b) {
            const Block at = grid().block(b);
            for (int c = 0; c < channels; ++c)
                for (int p = 0; p < at.count; ++p) block[p * 8 + c] = in[c * n + at.raster + p];
            splat_block(*lattice, shape, at, scale.data(), block.data(), vertices.data());
        }
        blur_all(*lattice, shape, vertices.data(), reversed);
        std::fill(scale.begin(), scale.end(), lattice->alpha());
        for (int64_t b = 0; b < grid().blocks(); ++b) {
            const Block at = grid().block(b);
            slice_block<false>(*lattice, shape, at, scale.data(), vertices.data(), block.data());
            for (int c = 0; c < channels; ++c)
                for (int p = 0; p < at.count; ++p) out[c * n + at.raster + p] = block[p * 8 + c];
        }
    }
};

class FieldOfTerms final : public DenseField {
public:
    FieldOfTerms(int labels, Grid grid) : field_{labels, grid, {}} {}

    void add_lattice(std::shared_ptr<const LatticeFilter> lattice, float weight, std::vector<float> matrix,
                     Normalization normalization) override {
        field_.terms.push_back(lattice_term(static_cast<const Filter&>(*lattice).lattice, weight, std::move(matrix), normalization, !field_.whole()));
    }

    void add_gaussian(double y_deviation, double x_deviation, float weight, std::vector<float> matrix,
                      Normalization normalization) override {
        field_.terms.push_back(gaussian_term(field_.grid, y_deviation, x_deviation, weight, std::move(matrix), normalization, !field_.whole()));
    }

    int infer(const Unary& unary, float* q, Inference inference, bool resume) const override {
        return ISA::infer(field_, unary, q, inference, resume);
    }

private:
    Field field_;
};

std::shared_ptr<LatticeFilter> lattice(const float* features, int d, Grid grid) {
    GivenFeatures given;
    given.d = d;
    given.values = features;
    given.pixels = grid.pixels();
    return std::make_shared<Filter>(given, grid);
}

std::shared_ptr<LatticeFilter> bilateral(const uint8_t* rgb, Grid grid, Deviations deviations) {
    BilateralFeatures features;
    features.d = 5;
    features.rgb = rgb;
    features.grid = grid;
    features.deviations = deviations;
    return std::make_shared<Filter>(features, grid);
}

std::unique_ptr<DenseField> field(int labels, Grid grid) { return std::make_unique<FieldOfTerms>(labels, grid); }

}  // namespace

const Engine engine{DENSEMASK_NAME(ISA), lattice, bilateral, field};

}  // namespace densemask::ISA
