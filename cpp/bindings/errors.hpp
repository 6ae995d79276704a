#pragma once

/// The one place where C++ errors become Python's: of the family in py/tickwire/errors.py, so that whoever
/// catches that misses none.

#include <pybind11/pybind11.h>

#include "tickwire/core/error.hpp"

namespace tickwire::bindings {

inline void register_errors(pybind11::module_& m) {
  const pybind11::object base = pybind11::module_::import("tickwire.errors").attr("SetupError");
  pybind11::register_exception<SetupError>(m, "SetupError", base.ptr());
}

}  // namespace tickwire::bindings
