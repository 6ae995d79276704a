#pragma once

/// Several models that answer as one: the mean of their scores, or a weighted mean.
///
/// The members run one after another on the calling thread over the same memory, and are summed in
/// double, in the order given: the same bits at each run. A run costs the sum of the members' runs; who
/// wants them side by side configures several models and combines the signals.

#include <memory>
#include <vector>

#include "tickwire/infer/model.hpp"

namespace tickwire::infer {

/// The members as one model; `weights` is empty for the mean, else one positive number a member (only
/// their ratios count). A single member is returned as it is. Scores carry the first
/// member's names. Throws SetupError unless all members have the same input, largest batch, number of
/// scores and feature schema, and no state.
[[nodiscard]] std::unique_ptr<Model> make_ensemble(std::vector<std::unique_ptr<Model>> members,
                                                   std::vector<double> weights);

}  // namespace tickwire::infer
