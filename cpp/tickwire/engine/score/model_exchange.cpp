#include "tickwire/engine/score/model_exchange.hpp"

#include <algorithm>
#include <cassert>
#include <thread>
#include <utility>

namespace tickwire::engine {
namespace {

/// What each stage used before, as far as they come; null for one that does not.
class Former {
 public:
  explicit Former(std::span<ScoringStage* const> stages) : stages_(stages), models_(stages.size()) {}

  /// Of these from now on, which are no more than there were before. None of them has come.
  void wait_for(std::span<ScoringStage* const> stages) noexcept { stages_ = stages; }

  /// Waits until all have come, or time is up; have they?
  bool wait(std::chrono::nanoseconds patience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    for (;;) {
      if (look()) return true;
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }
  std::unique_ptr<LoadedModel>& operator[](std::size_t i) { return models_[i]; }

 private:
  bool look() {
    bool all = true;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      if (models_[i] == nullptr) models_[i] = stages_[i]->former();
      all = all && models_[i] != nullptr;
    }
    return all;
  }

  std::span<ScoringStage* const> stages_;
  std::vector<std::unique_ptr<LoadedModel>> models_;
};

}  // namespace

void ModelExchange::use(infer::Model& model) {
  const std::lock_guard lock(mutex_);
  in_use_.push_back(&model);
}

void ModelExchange::forget(const LoadedModel& loaded) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase(in_use_, loaded.model.get());
}

void ModelExchange::interrupt() noexcept {
  const std::lock_guard lock(mutex_);
  for (infer::Model* model : in_use_) model->interrupt();
}

/// Has it gone back from an exchange before?
bool ModelExchange::settled(const ScoringStage* stage) const noexcept {
  return std::find(owed_.begin(), owed_.end(), stage) == owed_.end();
}

void ModelExchange::collect_owed() noexcept {
  std::erase_if(owed_, [this](ScoringStage* stage) {
    const std::unique_ptr<LoadedModel> newer = stage->former();
    if (newer != nullptr) forget(*newer);
    return newer != nullptr;
  });
}

ModelExchange::Outcome ModelExchange::go_over(std::span<ScoringStage* const> stages,
                                              std::vector<std::unique_ptr<LoadedModel>> ready,
                                              std::chrono::nanoseconds patience) {
  assert(ready.size() == stages.size());
  collect_owed();
  if (!std::all_of(stages.begin(), stages.end(), [this](ScoringStage* stage) { return settled(stage); })) {
    return {false, false, "one that stands still since an exchange that failed, and has to go back from it"};
  }
  // Whatever needs memory comes before the first of them goes over.
  Former older(stages);
  Former newer(stages);
  std::vector<ScoringStage*> back;
  back.reserve(stages.size());
  owed_.reserve(owed_.size() + stages.size());
  {
    const std::lock_guard lock(mutex_);
    in_use_.reserve(in_use_.size() + ready.size());
    for (const auto& loaded : ready) in_use_.push_back(loaded->model.get());
  }

  for (std::size_t i = 0; i < stages.size(); ++i) stages[i]->offer(std::move(ready[i]));
  if (older.wait(patience)) {
    for (std::size_t i = 0; i < stages.size(); ++i) forget(*older[i]);
    return {true, true, {}};
  }

  std::size_t still = 0;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (older[i] == nullptr) {
      if (const std::unique_ptr<LoadedModel> unused = stages[i]->withdraw()) {
        forget(*unused);
        ++still;
        continue;
      }
      // It was faster, and is about to give back what it used.
      while ((older[i] = stages[i]->former()) == nullptr) std::this_thread::yield();
    }
    back.push_back(stages[i]);
  }
  if (still == 0) {  // The last came just now.
    for (std::size_t i = 0; i < stages.size(); ++i) forget(*older[i]);
    return {true, true, {}};
  }
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (older[i] != nullptr) stages[i]->offer(std::move(older[i]));
  }
  newer.wait_for(back);
  (void)newer.wait(patience);
  for (std::size_t i = 0; i < back.size(); ++i) {
    // What it still has to take stays offered: an offer that were withdrawn would leave it with the newer
    // one.
    newer[i] != nullptr ? forget(*newer[i]) : owed_.push_back(back[i]);
  }
  return {false, !back.empty(), "one that stands still"};
}

}  // namespace tickwire::engine
