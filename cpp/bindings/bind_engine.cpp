#include "bind_engine.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "config_from_dict.hpp"
#include "names.hpp"
#include "tickwire/core/error.hpp"
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
  add("missing_trades", py::str("<u4"), offsetof(SignalHeader, missing_trades));
  add("unseen_us", py::str("<u4"), offsetof(SignalHeader, unseen_us));
  if (layout.score_count != 0) {
    add("scores", py::make_tuple("<f4", py::make_tuple(layout.score_count)), layout.scores_offset());
  }
  add("features", py::make_tuple("<f4", py::make_tuple(layout.feature_count)), layout.features_offset());
  return py::dtype(names, formats, offsets, static_cast<py::ssize_t>(layout.record_bytes()));
}

py::dict to_dict(const engine::CaptureFacts& facts) {
  using namespace py::literals;
  py::list stamps;
  for (const md::CaptureStamps& of : facts.stamps) {
    stamps.append(py::dict("file"_a = of.file, "form"_a = std::string(md::name_of(of.form)),
                           "as_nanoseconds"_a = of.as_nanoseconds, "fractions"_a = of.fractions,
                           "no_zone"_a = of.no_zone));
  }
  py::list lost;
  for (const engine::CaptureFacts::Lost& of : facts.lost) {
    lost.append(py::dict("instrument"_a = of.instrument, "state"_a = of.state, "reason"_a = of.reason,
                         "place"_a = of.place, "ts"_a = of.ts));
  }
  py::list not_warm;
  for (const engine::CaptureFacts::NotWarm& of : facts.not_warm) {
    not_warm.append(
        py::dict("instrument"_a = of.instrument, "feature"_a = of.feature, "more_ns"_a = of.more_ns));
  }
  return py::dict("feed"_a = facts.feed, "stamps"_a = stamps, "looks_like"_a = facts.looks_like,
                  "others"_a = facts.others, "others_count"_a = facts.others_count,
                  "without_changes"_a = facts.without_changes, "without_snapshot"_a = facts.without_snapshot,
                  "without_trades"_a = facts.without_trades, "resolution_ns"_a = facts.resolution_ns,
                  "lost"_a = lost, "not_warm"_a = not_warm);
}

/// The engine and what Python asks of it again and again.
struct BoundEngine : engine::Engine {
  explicit BoundEngine(engine::EngineConfig config) : engine::Engine(std::move(config)) {}
  std::optional<py::dtype> dtype;
};

/// Lends the mapped statistics to a memoryview, and keeps their engine for as long as one looks.
struct StatView {
  py::object engine;
};

py::buffer_info lend(const StatView& view) {
  const auto bytes = view.engine.cast<BoundEngine&>().stat_view();
  return {const_cast<std::byte*>(bytes.data()),
          1,
          py::format_descriptor<std::uint8_t>::format(),
          1,
          {static_cast<py::ssize_t>(bytes.size())},
          {1},
          true};
}

/// Building loads models and starts processes: others may run meanwhile.
std::unique_ptr<BoundEngine> build(const py::dict& config) {
  engine::EngineConfig settled = config_from_dict(config);
  std::unique_ptr<BoundEngine> engine;
  {
    const py::gil_scoped_release released;
    try {
      engine = std::make_unique<BoundEngine>(std::move(settled));
    } catch (const std::bad_alloc&) {
      throw SetupError(
          "memory: there is not as much as the configuration asks for, by max_orders, max_event_rate, "
          "output_slots, multicast.window_datagrams and the like");
    }
  }
  engine->dtype = record_dtype(engine->layout());
  return engine;
}

constexpr std::array<const char*, 5> kPhases = {"loading", "ready", "running", "left", "failed"};

void describe(py::dict& to, const engine::WorkerState& state) {
  to["pid"] = state.pid;
  to["pidfd"] = state.pidfd;
  // The worker writes it: never look beyond what we know.
  const auto phase = static_cast<std::size_t>(state.phase);
  to["phase"] = phase < kPhases.size() ? kPhases[phase] : "failed";
  to["heartbeat_age_ns"] = state.heartbeat_age_ns;
}

py::list workers_of(BoundEngine& engine) {
  py::list all;
  for (const auto& worker : engine.workers()) {
    py::dict one;
    one["name"] = worker->name();
    one["model"] = worker->model();
    one["given_up"] = worker->given_up();
    one["distrusted"] = worker->distrusted();
    one["wake_fd"] = worker->waker().fd();
    describe(one, worker->state(false));
    py::dict aside;
    describe(aside, worker->state(true));
    one["aside"] = std::move(aside);
    all.append(std::move(one));
  }
  return all;
}

engine::WorkerHost& worker_of(BoundEngine& engine, std::size_t index) { return *engine.workers().at(index); }

py::array poll(const py::object& self) {
  auto& engine = self.cast<BoundEngine&>();
  const engine::RecordBatch batch = engine.poll();
  // The view keeps the engine alive; its bytes hold until release().
  py::array view(*engine.dtype, {batch.count}, {batch.stride}, batch.records, self);
  view.attr("flags").attr("writeable") = false;
  return view;
}

}  // namespace

void bind_engine(py::module_& m) {
  m.attr("STAGES") = names_tuple(signal::kStageNames);
  m.attr("STATES") = names_tuple(signal::kSignalStateNames);
  py::list reasons;
  for (std::uint8_t code = 0; code < md::kInvalidReasons; ++code) {
    reasons.append(std::string(md::name_of(static_cast<md::InvalidReason>(code))));
  }
  m.attr("REASONS") = py::tuple(reasons);

  py::class_<StatView>(m, "StatView", py::buffer_protocol(),
                       py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type)))
      .def_buffer(&lend);

  // An ordinary metaclass: pybind11's own serves static properties, of which there are none, and no stub
  // could name it.
  py::class_<BoundEngine>(m, "Engine", py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type)))
      .def(py::init(&build), py::arg("config"))
      // Both wait for threads, so they must not hold the GIL.
      .def("start", &BoundEngine::start, py::call_guard<py::gil_scoped_release>())
      .def("stop", &BoundEngine::stop, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("report", &BoundEngine::report)
      .def_property_readonly("warm_report", &BoundEngine::warm_report)
      .def_property_readonly("capture_facts",
                             [](const BoundEngine& engine) {
                               py::list all;
                               for (const auto& facts : engine.capture_facts()) all.append(to_dict(facts));
                               return all;
                             })
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
      .def("stat_view", [](py::object self) { return py::memoryview(py::cast(StatView{std::move(self)})); })
      .def_property_readonly("stat_bytes_missing", &BoundEngine::stat_bytes_missing)
      .def_property_readonly("models",
                             [](const BoundEngine& self) {
                               py::list all;
                               for (const engine::ModelReport& model : self.models()) {
                                 py::dict one;
                                 one["name"] = model.name;
                                 one["id"] = model.id;
                                 one["ids"] = model.ids;
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
      .def_property_readonly("workers", &workers_of)
      .def(
          "start_worker", [](BoundEngine& self, std::size_t worker) { worker_of(self, worker).start(); },
          py::arg("worker"))
      .def(
          "start_worker_aside",
          [](BoundEngine& self, std::size_t worker, bool prepared) {
            engine::WorkerHost& host = worker_of(self, worker);
            host.start_aside(prepared ? self.prepared(host.model()) : nullptr);
          },
          py::arg("worker"), py::arg("prepared"))
      .def(
          "hand_over_worker", [](BoundEngine& self, std::size_t worker) { self.hand_over(worker); },
          py::arg("worker"))
      .def(
          "kill_worker",
          [](BoundEngine& self, std::size_t worker, bool aside, bool hung) {
            worker_of(self, worker).kill(aside, hung);
          },
          py::arg("worker"), py::arg("aside"), py::arg("hung"))
      .def(
          "reap_worker",
          [](BoundEngine& self, std::size_t worker, bool aside) -> py::object {
            const auto end = worker_of(self, worker).reap(aside);
            if (!end) return py::none();
            py::dict one;
            one["in_order"] = end->in_order;
            one["how"] = end->how;
            one["trouble"] = end->trouble;
            return one;
          },
          py::arg("worker"), py::arg("aside"))
      .def(
          "give_up_worker",
          [](BoundEngine& self, std::size_t worker, const std::string& why) {
            worker_of(self, worker).give_up(why);
          },
          py::arg("worker"), py::arg("why"))
      .def(
          "prepare_model",
          [](BoundEngine& self, std::size_t model, const py::list& members, std::uint32_t id) {
            const std::vector<engine::ModelMember> files = members_from(members);
            const py::gil_scoped_release released;
            self.prepare_model(model, files, id);
          },
          py::arg("model"), py::arg("members"), py::arg("id"))
      .def("went_over", &BoundEngine::went_over, py::arg("model"))
      .def_property_readonly("row_dtype", [](const BoundEngine& engine) { return *engine.dtype; })
      .def_property_readonly("max_snapshot_bytes", &BoundEngine::max_snapshot_bytes)
      .def("waker_fd", [](BoundEngine& engine) { return engine.waker().fd(); })
      .def("prepare_sleep", [](BoundEngine& engine) { return engine.prepare_sleep(); })
      .def("woke", [](BoundEngine& engine) { engine.woke(); })
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
           py::arg("why"), py::arg("pause_ns") = 0)
      .def("recorded_files",
           [](BoundEngine& engine) {
             py::list files;
             for (const engine::RecordedFile& file : engine.recorded_files()) {
               files.append(py::make_tuple(file.file, file.bytes, file.sha256));
             }
             return files;
           })
      .def("finish_recording", &BoundEngine::finish_recording, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("finished", &BoundEngine::finished)
      .def_property_readonly("failed", &BoundEngine::failed);
}

}  // namespace tickwire::bindings
