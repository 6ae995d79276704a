#pragma once

/// What every executor's models are tried for when they are loaded, on made-up rows: whatever says it can
/// run a model is not believed.

#include "tickwire/infer/model.hpp"

namespace tickwire::infer {

/// Throws SetupError unless a row gets the same scores each time it is asked, from the same state: bit for
/// bit, or to a thousandth where the model is not exact; and, in batches, scores that do not depend on the
/// other rows of its batch, to a thousandth. A run that fails is not reported here: the warm-up does, where
/// it is of one row.
void try_out(Model& model);

}  // namespace tickwire::infer
