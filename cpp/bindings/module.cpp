#include <pybind11/pybind11.h>

#include "bind_engine.hpp"
#include "bind_features.hpp"
#include "bind_md.hpp"
#include "bind_model.hpp"
#include "errors.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The data plane. Private: use the names of the package tickwire.";
  m.attr("__version__") = TICKWIRE_VERSION;
  tickwire::bindings::register_errors(m);
  tickwire::bindings::bind_md(m);
  tickwire::bindings::bind_features(m);
  tickwire::bindings::bind_engine(m);
  tickwire::bindings::bind_model(m);
}
