#pragma once

/// The one place where C++ errors become Python's. The facade in py/tickwire names them.

#include <pybind11/pybind11.h>

#include "tickwire/core/error.hpp"

namespace tickwire::bindings {

inline void register_errors(pybind11::module_& m) {
  pybind11::register_exception<SetupError>(m, "SetupError");
}

}  // namespace tickwire::bindings
