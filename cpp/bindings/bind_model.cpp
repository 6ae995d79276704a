#include "bind_model.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "names.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/infer/aligned_floats.hpp"
#include "tickwire/infer/executors.hpp"
#include "tickwire/infer/loader.hpp"
#include "tickwire/infer/model_timer.hpp"

namespace tickwire::bindings {

namespace py = pybind11;

namespace {

using Floats = py::array_t<float, py::array::c_style>;

/// A model of the engine's, and the memory that its batches are read from: it starts on a cache line, as
/// the engine's slots do, so that the scores are the same bits.
class BoundModel {
 public:
  BoundModel(const std::vector<std::string>& members, const std::vector<double>& weights,
             const std::string& provider, const std::string& cache_dir, std::size_t max_batch,
             std::size_t rows, std::size_t features, const std::string& library,
             const std::vector<int>& fds) {
    model_ = infer::load_model({.members = members_of(members, weights, fds),
                                .library = library,
                                .provider = provider,
                                .cache_dir = cache_dir},
                               {.rows = rows, .features = features, .max_batch = max_batch});
    input_ = infer::AlignedFloats(max_batch * info().rows * info().features);
    handle_ = model_->bind(input_.data());
  }

  [[nodiscard]] const infer::ModelInfo& info() const { return model_->info(); }

  std::size_t warm_up() {
    const std::lock_guard lock(mutex_);
    return model_->warm_up(infer::kWarmUpRuns, infer::kWarmUpMaxNs);
  }

  /// The time of each row under a load, in ns.
  py::array_t<std::int64_t> time(const infer::Load& load) {
    std::vector<std::int64_t> times;
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      if (!timer_) timer_ = std::make_unique<infer::ModelTimer>(*model_);
      times = timer_->time(load);
    }
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(times.size()), times.data());
  }

  /// Row by row where max_batch is 1, else in batches of max_batch and a last one of what is left.
  py::array_t<float> run(const Floats& batch) {
    const std::size_t count = check_shape(batch);
    const std::size_t block = info().rows * info().features;
    const std::size_t scores = info().score_names.size();
    py::array_t<float> out({count, scores});
    const float* from = batch.data();
    float* to = out.mutable_data();
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    for (std::size_t done = 0; done < count;) {
      const std::size_t size = std::min(info().max_batch, count - done);
      std::copy_n(from + done * block, size * block, input_.data());
      if (!model_->run_batch(handle_, size, {to + done * scores, size * scores})) {
        throw SetupError(info().path, "a model that scores its rows", std::string(model_->last_error()));
      }
      done += size;
    }
    return out;
  }

 private:
  static std::vector<infer::ModelMember> members_of(const std::vector<std::string>& paths,
                                                    const std::vector<double>& weights,
                                                    const std::vector<int>& fds) {
    const auto check = [&](const char* what, std::size_t count) {
      if (count == 0 || count == paths.size()) return;
      throw SetupError(what, std::to_string(paths.size()) + ", one a member, or none", std::to_string(count));
    };
    check("weights", weights.size());
    check("fds", fds.size());
    std::vector<infer::ModelMember> members;
    for (std::size_t i = 0; i < paths.size(); ++i) {
      members.push_back(
          {.path = paths[i], .weight = weights.empty() ? 1.0 : weights[i], .fd = fds.empty() ? -1 : fds[i]});
    }
    return members;
  }

  [[nodiscard]] std::size_t check_shape(const Floats& batch) const {
    const auto rows = static_cast<py::ssize_t>(info().rows);
    const auto features = static_cast<py::ssize_t>(info().features);
    const bool row = batch.ndim() == 2 && rows == 1 && batch.shape(1) == features;
    const bool window = batch.ndim() == 3 && batch.shape(1) == rows && batch.shape(2) == features;
    if (row || window) return static_cast<std::size_t>(batch.shape(0));
    std::string expected = "floats of [n, ";
    if (rows > 1) expected.append(std::to_string(rows)).append(", ");
    expected.append(std::to_string(features)).append("]");
    std::string found = "[";
    for (py::ssize_t i = 0; i < batch.ndim(); ++i) {
      found.append(i == 0 ? "" : ", ").append(std::to_string(batch.shape(i)));
    }
    throw SetupError(info().path + ": batch", expected, found + "]");
  }

  infer::AlignedFloats input_{0};
  std::unique_ptr<infer::Model> model_;
  std::unique_ptr<infer::ModelTimer> timer_;
  std::size_t handle_ = 0;
  std::mutex mutex_;  // One thread uses a model at a time, and Python may have several.
};

}  // namespace

void bind_model(py::module_& m) {
  m.attr("EXECUTORS") = names_tuple(infer::kExecutors);

  py::class_<BoundModel>(m, "Model", py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type)))
      .def(py::init([](const std::vector<std::string>& members, const std::vector<double>& weights,
                       const std::string& provider, const std::string& cache_dir, std::size_t max_batch,
                       std::size_t rows, std::size_t features, const std::string& library,
                       const std::vector<int>& fds) {
             const py::gil_scoped_release release;  // Loading takes milliseconds to seconds.
             return std::make_unique<BoundModel>(members, weights, provider, cache_dir, max_batch, rows,
                                                 features, library, fds);
           }),
           py::arg("members"), py::arg("weights"), py::arg("provider"), py::arg("cache_dir"),
           py::arg("max_batch"), py::arg("rows"), py::arg("features"), py::arg("library"),
           py::arg("fds") = std::vector<int>{})
      .def("run", &BoundModel::run, py::arg("batch"))
      .def("warm_up", &BoundModel::warm_up, py::call_guard<py::gil_scoped_release>())
      .def(
          "time",
          [](BoundModel& model, std::size_t rows, std::int64_t interval_ns, std::int64_t total_ns, bool sleep,
             bool cold) {
            return model.time({.rows = rows,
                               .interval_ns = interval_ns,
                               .total_ns = total_ns,
                               .sleep = sleep,
                               .cold = cold});
          },
          py::arg("rows"), py::arg("interval_ns"), py::arg("total_ns"), py::arg("sleep"), py::arg("cold"))
      .def_property_readonly("rows", [](const BoundModel& model) { return model.info().rows; })
      .def_property_readonly("features", [](const BoundModel& model) { return model.info().features; })
      .def_property_readonly("score_names", [](const BoundModel& model) { return model.info().score_names; })
      .def_property_readonly("executor", [](const BoundModel& model) { return model.info().executor; })
      .def_property_readonly("schema", [](const BoundModel& model) { return model.info().schema_json; })
      .def_property_readonly("fingerprint",
                             [](const BoundModel& model) { return model.info().schema_sha256; })
      .def_property_readonly("notes", [](const BoundModel& model) { return model.info().notes; });

  m.def(
      "providers", [](const std::string& library) { return infer::model_providers(library); },
      py::arg("library"));
  m.def(
      "optimize_model",
      [](const std::string& path, const std::string& out, const std::string& format,
         const std::string& provider, const std::string& library) {
        infer::optimize_model({.members = {{.path = path, .weight = 1.0}},
                               .library = library,
                               .provider = provider,
                               .cache_dir = ""},
                              out, format);
      },
      py::arg("path"), py::arg("out"), py::arg("format"), py::arg("provider"), py::arg("library"),
      py::call_guard<py::gil_scoped_release>());
}

}  // namespace tickwire::bindings
