#pragma once

/// What py/tickwire/launch.py makes of a configuration, as the engine's structs. A key that is missing
/// or of the wrong type is a SetupError that names it: Python has checked everything before, so it is
/// a mistake of ours, not the user's.

#include <pybind11/pybind11.h>

#include <vector>

#include "tickwire/engine/config.hpp"

namespace tickwire::bindings {

[[nodiscard]] engine::EngineConfig config_from_dict(const pybind11::dict& dict);

/// A model's files: pairs of a path and a weight.
[[nodiscard]] std::vector<engine::ModelMember> members_from(const pybind11::list& list);

}  // namespace tickwire::bindings
