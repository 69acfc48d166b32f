// The Python module: checked arrays in, arrays out, the GIL released while it works.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <cstring>
#include <numeric>

#include "interface.hpp"

namespace nb = nanobind;
using namespace densemask;
using nb::literals::operator""_a;

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Image = nb::ndarray<const uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

const Engine& engine() {
    static const Engine& chosen = []() -> const Engine& {
#if defined(DENSEMASK_X86)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq"))
            return avx512::engine;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::engine;
#endif
        return baseline::engine;
    }();
    return chosen;
}

Normalization normalization_of(const std::string& name) {
    if (name == "symmetric") return Normalization::symmetric;
    if (name == "before") return Normalization::before;
    if (name == "after") return Normalization::after;
    if (name == "none") return Normalization::none;
    throw nb::value_error(("unknown normalization '" + name + "'; there are symmetric, before, after, none").c_str());
}

Inference inference_of(int iterations, double stop_when_unchanged, double settled_above, double longest_step) {
    if (!(longest_step >= 1)) throw nb::value_error("longest_step must be 1 or more");
    return {iterations, stop_when_unchanged, settled_above, longest_step};
}

constexpr char OF_THE_FIELD[] = "unary and q must be [labels, pixels] of the field";

struct FieldOfLabels {
    int labels;
    Grid grid;
    std::unique_ptr<DenseField> field;

    void check(const Result& q) const {
        if (int64_t(q.shape(0)) != labels || int64_t(q.shape(1)) != grid.pixels()) throw nb::value_error(OF_THE_FIELD);
    }
};

}  // namespace

NB_MODULE(_engine, m) {
    m.def("instruction_set", [] { return std::string(engine().name); });

    nb::class_<LatticeFilter>(m, "Lattice")
        .def_prop_ro("vertices", &LatticeFilter::vertices)
        .def_prop_ro("pixels", [](const LatticeFilter& self) { return self.grid().pixels(); })
        .def(
            "filter",
            [](const LatticeFilter& self, Matrix values, Result out, bool reversed) {
                if (int64_t(values.shape(1)) != self.grid().pixels() || out.shape(1) != values.shape(1) || out.shape(0) != values.shape(0))
                    throw nb::value_error("values and out must be [channels, pixels] of the lattice");
                nb::gil_scoped_release released;
                self.apply(values.data(), int(values.shape(0)), reversed, out.data());
            },
            "values"_a, "out"_a.noconvert(), "reversed"_a = false);

    m.def(
        "lattice",
        [](Matrix features, int64_t height, int64_t width) {
            if (height < 1 || width < 1 || int64_t(features.shape(0)) != height * width) throw nb::value_error("features must be [height * width, d]");
            if (features.shape(1) < 1 || features.shape(1) > 32) throw nb::value_error("features must have 1 to 32 dimensions");
            nb::gil_scoped_release released;
            return engine().lattice(features.data(), int(features.shape(1)), Grid{height, width});
        },
        "features"_a, "height"_a, "width"_a);
    m.def(
        "bilateral",
        [](Image rgb, std::vector<float> deviations) {
            if (deviations.size() != 5) throw nb::value_error("five deviations: y, x, red, green, blue");
            if (rgb.shape(0) < 1 || rgb.shape(1) < 1) throw nb::value_error("an image without pixels");
            const Deviations given{deviations[0], deviations[1], deviations[2], deviations[3], deviations[4]};
            nb::gil_scoped_release released;
            return engine().bilateral(rgb.data(), Grid{int64_t(rgb.shape(0)), int64_t(rgb.shape(1))}, given);
        },
        "rgb"_a.noconvert(), "deviations"_a);

    nb::class_<FieldOfLabels>(m, "Field")
        .def(
            "__init__",
            [](FieldOfLabels* self, int labels, int64_t height, int64_t width) {
                if (labels < 1 || height < 1 || width < 1) throw nb::value_error("a field needs labels and pixels");
                new (self) FieldOfLabels{labels, {height, width}, engine().field(labels, {height, width})};
            },
            "labels"_a, "height"_a, "width"_a)
        .def(
            "add_lattice",
            [](FieldOfLabels& self, std::shared_ptr<LatticeFilter> lattice, float weight, std::vector<float> matrix, const std::string& normalization) {
                if (lattice->grid().height != self.grid.height || lattice->grid().width != self.grid.width)
                    throw nb::value_error("the lattice is of another size than the field");
                if (!matrix.empty() && matrix.size() != size_t(self.labels) * self.labels) throw nb::value_error("the matrix must be [labels, labels]");
                const Normalization how = normalization_of(normalization);
                nb::gil_scoped_release released;
                self.field->add_lattice(std::move(lattice), weight, std::move(matrix), how);
            },
            "lattice"_a, "weight"_a, "matrix"_a, "normalization"_a)
        .def(
            "add_gaussian",
            [](FieldOfLabels& self, double y_std, double x_std, float weight, std::vector<float> matrix, const std::string& normalization) {
                if (!(y_std > 0 && x_std > 0 && y_std < 1e6 && x_std < 1e6)) throw nb::value_error("a deviation must be positive");
                if (!matrix.empty() && matrix.size() != size_t(self.labels) * self.labels) throw nb::value_error("the matrix must be [labels, labels]");
                const Normalization how = normalization_of(normalization);
                nb::gil_scoped_release released;
                self.field->add_gaussian(y_std, x_std, weight, std::move(matrix), how);
            },
            "y_std"_a, "x_std"_a, "weight"_a, "matrix"_a, "normalization"_a)
        .def(
            "infer",
            [](const FieldOfLabels& self, Matrix unary, Result q, int iterations, double stop_when_unchanged, bool resume, double settled_above,
               double longest_step) {
                self.check(q);
                if (unary.shape(0) != q.shape(0) || unary.shape(1) != q.shape(1)) throw nb::value_error(OF_THE_FIELD);
                Unary energies{unary.data(), std::vector<int64_t>(self.labels)};
                std::iota(energies.planes.begin(), energies.planes.end(), int64_t(0));
                const Inference inference = inference_of(iterations, stop_when_unchanged, settled_above, longest_step);
                nb::gil_scoped_release released;
                return self.field->infer(energies, q.data(), inference, resume);
            },
            "unary"_a, "q"_a.noconvert(), "iterations"_a, "stop_when_unchanged"_a, "resume"_a, "settled_above"_a = 0.0, "longest_step"_a = 1.0)
        .def(
            "refine",
            [](const FieldOfLabels& self, Matrix probabilities, std::vector<int64_t> kept, double floor, Result q, int iterations,
               double stop_when_unchanged, double settled_above, double longest_step) {
                self.check(q);
                if (probabilities.shape(1) != q.shape(1)) throw nb::value_error("probabilities must have the pixels of the field");
                if (kept.size() != q.shape(0)) throw nb::value_error("kept must name a plane of probabilities for each label");
                for (const int64_t plane : kept)
                    if (plane < 0 || plane >= int64_t(probabilities.shape(0))) throw nb::value_error("kept names a plane that probabilities do not have");
                const Unary unary{probabilities.data(), std::move(kept), true, float(floor)};
                const Inference inference = inference_of(iterations, stop_when_unchanged, settled_above, longest_step);
                nb::gil_scoped_release released;
                return self.field->infer(unary, q.data(), inference, false);
            },
            "probabilities"_a, "kept"_a, "floor"_a, "q"_a.noconvert(), "iterations"_a, "stop_when_unchanged"_a, "settled_above"_a, "longest_step"_a);
}
