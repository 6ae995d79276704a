#include "tickwire/infer/ensemble.hpp"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cmath>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "tickwire/core/error.hpp"

namespace tickwire::infer {
namespace {

std::string shape_text(const ModelInfo& info) {
  return std::to_string(info.rows) + " x " + std::to_string(info.features) + " floats, batches of up to " +
         std::to_string(info.max_batch);
}

void check_alike(const ModelInfo& first, const ModelInfo& other) {
  const auto refuse = [&](const std::string& expected, const std::string& found) {
    throw SetupError(other.path, expected + " as in " + first.path, found);
  };
  if (shape_text(first) != shape_text(other)) refuse(shape_text(first), shape_text(other));
  if (first.score_names.size() != other.score_names.size()) {
    refuse(std::to_string(first.score_names.size()) + " scores", std::to_string(other.score_names.size()));
  }
  if (first.schema_sha256 != other.schema_sha256) {
    const auto text = [](const ModelInfo& info) {
      return info.schema_sha256.empty() ? "no schema" : "schema " + info.schema_sha256;
    };
    refuse(text(first), text(other));
  }
}

class Ensemble final : public Model {
 public:
  Ensemble(std::vector<std::unique_ptr<Model>> members, std::vector<double> weights)
      : Model(members.front()->info()), members_(std::move(members)), weights_(std::move(weights)) {
    std::ostringstream text;
    text << (weights_.empty() ? "mean of " : "weighted mean of ") << members_.size();
    for (std::size_t i = 0; i < weights_.size(); ++i) text << (i == 0 ? " (" : ", ") << weights_[i];
    if (!weights_.empty()) text << ")";
    std::set<std::string> executors{info_.executor};
    for (std::size_t i = 1; i < members_.size(); ++i) {
      const ModelInfo& other = members_[i]->info();
      if (executors.insert(other.executor).second) info_.executor += ", " + other.executor;
      info_.exact = info_.exact && other.exact;
      info_.path += " + " + other.path;
      info_.notes.insert(info_.notes.end(), other.notes.begin(), other.notes.end());
      if (other.score_names != info_.score_names) {
        info_.notes.push_back(other.path + " names its scores otherwise than " + members_[0]->info().path +
                              ", whose names are used");
      }
    }
    info_.executor = text.str() + ": " + info_.executor;
    weights_.resize(members_.size(), 1.0);
    for (const double weight : weights_) total_ += weight;
    scores_.resize(info_.max_batch * info_.score_names.size());
    sums_.resize(scores_.size());
  }

  void interrupt() noexcept override {
    for (const auto& member : members_) member->interrupt();
  }

  std::size_t warm_up(std::size_t runs, std::int64_t max_ns) override {
    const auto start = std::chrono::steady_clock::now();
    std::size_t fewest = runs;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      // An equal part of the time that is left for each.
      const std::int64_t gone = (std::chrono::steady_clock::now() - start) / std::chrono::nanoseconds(1);
      const auto remaining = static_cast<std::int64_t>(members_.size() - i);
      fewest = std::min(fewest, members_[i]->warm_up(runs, (max_ns - gone) / remaining));
    }
    return fewest;
  }

  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept
      TICKWIRE_HOT override {
    assert(handle + members_.size() <= handles_.size());
    assert(count <= info_.max_batch && scores.size() == count * info_.score_names.size());
    const std::span<float> part{scores_.data(), scores.size()};
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (!members_[i]->run_batch(handles_[handle + i], count, part)) [[unlikely]] {
        failed_ = i;
        return false;
      }
      for (std::size_t k = 0; k < part.size(); ++k) {
        const double weighted = weights_[i] * static_cast<double>(part[k]);
        sums_[k] = i == 0 ? weighted : sums_[k] + weighted;
      }
    }
    for (std::size_t k = 0; k < scores.size(); ++k) scores[k] = static_cast<float>(sums_[k] / total_);
    return true;
  }

  [[nodiscard]] std::string_view last_error() const noexcept TICKWIRE_HOT override {
    return members_[failed_]->last_error();
  }

 protected:
  /// A handle is the place of the first of the members' own handles.
  std::size_t add_binding(const float* inputs, std::span<float>) override {
    const std::size_t handle = handles_.size();
    for (const auto& member : members_) handles_.push_back(member->bind(inputs));
    return handle;
  }

 private:
  std::vector<std::unique_ptr<Model>> members_;
  std::vector<double> weights_;
  double total_ = 0;
  std::vector<std::size_t> handles_;
  std::vector<float> scores_;  // Of one member.
  std::vector<double> sums_;
  std::size_t failed_ = 0;
};

}  // namespace

std::unique_ptr<Model> make_ensemble(std::vector<std::unique_ptr<Model>> members,
                                     std::vector<double> weights) {
  if (members.empty()) throw SetupError("an ensemble", "at least one model", "none");
  const auto named = [&] { return "the ensemble of " + members.front()->info().path; };
  if (!weights.empty() && weights.size() != members.size()) {
    throw SetupError(named() + ": weights", std::to_string(members.size()) + ", one a model",
                     std::to_string(weights.size()));
  }
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight <= 0) {
      throw SetupError(named() + ": weights", "positive numbers", std::to_string(weight));
    }
  }
  if (members.size() == 1) return std::move(members.front());
  for (const auto& member : members) {
    check_alike(members.front()->info(), member->info());
    // Whose would be whose is nobody's to say yet.
    if (!member->info().states.empty()) {
      throw SetupError(member->info().path, "a model without state, in an ensemble",
                       "the state " + member->info().states.front().name);
    }
  }
  return std::make_unique<Ensemble>(std::move(members), std::move(weights));
}

}  // namespace tickwire::infer
