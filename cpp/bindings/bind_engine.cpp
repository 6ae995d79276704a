#include "bind_engine.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <string_view>

#include "config_from_dict.hpp"
#include "tickwire/engine/engine.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::bindings {

namespace py = pybind11;

namespace {

/// The signal record as a structured dtype, field for field.
py::dtype record_dtype(const signal::RecordLayout& layout) {
  using signal::SignalHeader;
  py::list names;
  py::list formats;
  py::list offsets;
  const auto add = [&](const char* name, py::object format, std::size_t offset) {
    names.append(name);
    formats.append(std::move(format));
    offsets.append(offset);
  };
  add("instrument", py::str("<u4"), offsetof(SignalHeader, instrument));
  add("epoch", py::str("<u4"), offsetof(SignalHeader, epoch));
  add("row", py::str("<u8"), offsetof(SignalHeader, row));
  add("sequence", py::str("<u8"), offsetof(SignalHeader, sequence));
  add("ts_event", py::str("<i8"), offsetof(SignalHeader, ts_event));
  add("ts_recv", py::str("<i8"), offsetof(SignalHeader, ts_recv));
  add("ts_out", py::str("<i8"), offsetof(SignalHeader, ts_out));
  add("state", py::str("|u1"), offsetof(SignalHeader, state));
  add("reason", py::str("|u1"), offsetof(SignalHeader, reason));
  add("recv_clock", py::str("|u1"), offsetof(SignalHeader, recv_clock));
  add("scored", py::str("|u1"), offsetof(SignalHeader, scored));
  add("model_id", py::str("<u4"), offsetof(SignalHeader, model_id));
  add("stage_ns", py::make_tuple("<i8", py::make_tuple(signal::kStageCount)),
      offsetof(SignalHeader, stage_ns));
  if (layout.score_count != 0) {
    add("scores", py::make_tuple("<f4", py::make_tuple(layout.score_count)), layout.scores_offset());
  }
  add("features", py::make_tuple("<f4", py::make_tuple(layout.feature_count)), layout.features_offset());
  return py::dtype(names, formats, offsets, static_cast<py::ssize_t>(layout.record_bytes()));
}

template <typename Names>
py::tuple names_tuple(const Names& names) {
  py::tuple result(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) result[i] = py::str(std::string(names[i]));
  return result;
}

/// The engine and what Python asks of it again and again.
struct BoundEngine : engine::Engine {
  explicit BoundEngine(engine::EngineConfig config)
      : engine::Engine(std::move(config)), dtype(record_dtype(layout())) {}
  py::dtype dtype;
};

py::array poll(const py::object& self) {
  auto& engine = self.cast<BoundEngine&>();
  const engine::RecordBatch batch = engine.poll();
  // The view keeps the engine alive; its bytes hold until release().
  py::array view(engine.dtype, {batch.count}, {batch.stride}, batch.records, self);
  view.attr("flags").attr("writeable") = false;
  return view;
}

}  // namespace

void bind_engine(py::module_& m) {
  m.attr("STAGES") = names_tuple(signal::kStageNames);
  m.attr("STATES") = names_tuple(signal::kSignalStateNames);
  py::list reasons;
  for (std::uint8_t code = 0; code <= static_cast<std::uint8_t>(md::InvalidReason::Depth); ++code) {
    reasons.append(std::string(md::name_of(static_cast<md::InvalidReason>(code))));
  }
  m.attr("REASONS") = py::tuple(reasons);

  // An ordinary metaclass: pybind11's own serves static properties, of which there are none, and no stub
  // could name it.
  py::class_<BoundEngine>(m, "Engine", py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type)))
      .def(py::init([](const py::dict& config) {
             return std::make_unique<BoundEngine>(config_from_dict(config));
           }),
           py::arg("config"))
      // Both wait for threads, so they must not hold the GIL.
      .def("start", &BoundEngine::start, py::call_guard<py::gil_scoped_release>())
      .def("stop", &BoundEngine::stop, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("report", &BoundEngine::report)
      .def_property_readonly("warm_report", &BoundEngine::warm_report)
      .def_property_readonly("threads",
                             [](const BoundEngine& engine) {
                               py::dict threads;
                               for (const auto& [name, tid] : engine.threads()) threads[py::str(name)] = tid;
                               return threads;
                             })
      .def_property_readonly("duty_cycles",
                             [](const BoundEngine& engine) {
                               py::dict all;
                               for (const auto& duty : engine.duty_cycles()) {
                                 py::dict one;
                                 one["cycles"] = duty.cycles;
                                 one["busy"] = duty.busy;
                                 one["long"] = duty.too_long;
                                 one["max_ns"] = duty.max_ns;
                                 all[py::str(duty.thread)] = one;
                               }
                               return all;
                             })
      .def_property_readonly("stat_path", &BoundEngine::stat_path)
      .def_property_readonly("models",
                             [](const BoundEngine& self) {
                               py::list all;
                               for (const engine::ModelReport& model : self.models()) {
                                 py::dict one;
                                 one["name"] = model.name;
                                 one["id"] = model.id;
                                 one["executor"] = model.executor;
                                 one["score_names"] = model.score_names;
                                 one["shadow"] = model.shadow;
                                 all.append(one);
                               }
                               return all;
                             })
      .def(
          "swap_model",
          [](BoundEngine& self, std::size_t model, const py::list& members, std::uint32_t id) {
            const std::vector<engine::ModelMember> files = members_from(members);
            // Loading takes long, and the agents are waited for.
            const py::gil_scoped_release release;
            self.swap_model(model, files, id);
          },
          py::arg("model"), py::arg("members"), py::arg("id"))
      .def_property_readonly("row_dtype", [](const BoundEngine& engine) { return engine.dtype; })
      .def_property_readonly("max_snapshot_bytes", &BoundEngine::max_snapshot_bytes)
      .def("waker_fd", [](BoundEngine& engine) { return engine.waker().fd(); })
      .def("prepare_sleep",
           [](BoundEngine& engine) {
             return engine.waker().prepare_sleep([&engine] { return engine.has_output(); });
           })
      .def("woke", [](BoundEngine& engine) { engine.waker().woke(); })
      .def("poll", &poll)
      .def("release", &BoundEngine::release)
      .def("poll_requests",
           [](BoundEngine& engine) {
             py::list requests;
             while (const auto request = engine.poll_request()) {
               requests.append(py::make_tuple(request->feed, request->instrument, request->attempt));
             }
             return requests;
           })
      .def(
          "deliver_snapshot",
          [](BoundEngine& engine, std::uint32_t feed, std::uint32_t instrument, const py::bytes& body) {
            return engine.deliver_snapshot(feed, instrument, std::string_view(body));
          },
          py::arg("feed"), py::arg("instrument"), py::arg("body"))
      .def("fail_snapshot", &BoundEngine::fail_snapshot, py::arg("feed"), py::arg("instrument"),
           py::arg("why"))
      .def_property_readonly("finished", &BoundEngine::finished)
      .def_property_readonly("failed", &BoundEngine::failed);
}

}  // namespace tickwire::bindings
