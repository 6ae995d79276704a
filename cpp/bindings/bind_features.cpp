#include "bind_features.hpp"

#include <pybind11/stl.h>

#include "tickwire/features/kernel.hpp"
#include "tickwire/features/plan.hpp"

namespace tickwire::bindings {

namespace py = pybind11;

namespace {

const char* name_of(features::Parameter::Kind kind) {
  using Kind = features::Parameter::Kind;
  switch (kind) {
    case Kind::Expression: return "expression";
    case Kind::Levels: return "levels";
    case Kind::Window: return "window";
    case Kind::Duration:
    case Kind::Halflife: return "duration";
    case Kind::Lag: return "lag";
  }
  return "";
}

const char* name_of(features::Reach reach) {
  switch (reach) {
    case features::Reach::None: return "none";
    case features::Reach::Best: return "best";
    case features::Reach::Levels: return "levels";
  }
  return "";
}

py::dict entry_of(const features::KernelEntry& kernel) {
  using features::Reads;
  py::list parameters;
  for (const features::Parameter& parameter : kernel.parameters) {
    if (parameter.name.empty()) continue;
    parameters.append(py::make_tuple(
        parameter.name, name_of(parameter.kind),
        parameter.fallback == 0 ? py::object(py::none()) : py::object(py::int_(parameter.fallback))));
  }
  py::dict entry;
  entry["name"] = kernel.name;
  entry["parameters"] = parameters;
  entry["formula"] = kernel.formula;
  entry["unit"] = kernel.unit;
  entry["description"] = kernel.description;
  entry["source"] = kernel.source;
  entry["version"] = kernel.version;
  entry["reads_trades"] = kernel.reads_any(Reads::Trades);
  entry["by_order"] = kernel.reads_any(Reads::Arrivals | Reads::Cancels);
  entry["reach"] = name_of(kernel.reach);
  return entry;
}

}  // namespace

void bind_features(py::module_& m) {
  m.def("kernels", [] {
    py::list entries;
    for (const features::KernelEntry& kernel : features::kernels()) entries.append(entry_of(kernel));
    return entries;
  });
  m.attr("MAX_LEVELS") = features::kMaxLevels;
  m.attr("MAX_WINDOW_NS") = features::kMaxWindowNs;
  m.attr("MAX_WINDOW_COUNT") = features::kMaxWindowCount;
}

}  // namespace tickwire::bindings
