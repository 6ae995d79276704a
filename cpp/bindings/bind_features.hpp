#pragma once

#include <pybind11/pybind11.h>

namespace tickwire::bindings {

/// The list of kernels, for whoever reads it in Python.
void bind_features(pybind11::module_& m);

}  // namespace tickwire::bindings
