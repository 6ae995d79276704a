#pragma once

#include <pybind11/pybind11.h>

namespace tickwire::bindings {

void bind_md(pybind11::module_& m);

}  // namespace tickwire::bindings
