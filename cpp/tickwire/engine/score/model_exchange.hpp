#pragma once

/// How the agents that score with one model go over to another: all of them, or none.
///
/// Each goes over between two rows of its own, so for a moment some score with the one and some with the
/// other. Where one does not come, because a run of its model does not end, those that have gone over go
/// back. One of them that stands still by then has its way back before it: it takes the older model before it
/// scores another row, and no other exchange begins before it has.
///
/// Also knows every model that agents run, or are about to, so that the end of an engine can interrupt them.

#include <chrono>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "tickwire/engine/score/scoring_stage.hpp"
#include "tickwire/infer/model.hpp"

namespace tickwire::engine {

/// For an agent to come to another model: the longest run of a model that anybody would wait for.
inline constexpr std::chrono::seconds kGoOver{10};

class ModelExchange {
 public:
  struct Outcome {
    bool went_over;        // All have.
    bool scored;           // There may be scores of it: all have gone over, or some had and are to go back.
    std::string_view why;  // Where they have not; a text that stays.
  };

  /// Set-up: an agent will run it.
  void use(infer::Model& model);

  /// Control threads, one at a time: to `ready`, one that is prepared for each of the stages. Waits for as
  /// long as `patience` for all of them, and where they go back as long again.
  [[nodiscard]] Outcome go_over(std::span<ScoringStage* const> stages,
                                std::vector<std::unique_ptr<LoadedModel>> ready,
                                std::chrono::nanoseconds patience);

  /// Any thread, at the end: runs that go on fail, and so do later ones.
  void interrupt() noexcept;

 private:
  void forget(const LoadedModel& loaded) noexcept;
  [[nodiscard]] bool settled(const ScoringStage* stage) const noexcept;
  void collect_owed() noexcept;

  std::mutex mutex_;
  std::vector<infer::Model*> in_use_;
  std::vector<ScoringStage*> owed_;  // They have not gone back yet.
};

}  // namespace tickwire::engine
