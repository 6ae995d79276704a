#include "tickwire/engine/ingest/replay.hpp"

namespace tickwire::engine {

namespace {

constexpr int kEntriesATurn = 256;  // Bounds a turn, so that stop() is served.

}  // namespace

void Replay::start() {
  for (auto& input : inputs_) input->read();
}

int Replay::turn() noexcept {
  if (at_end_) return 0;
  int entries = 0;
  for (; entries < kEntriesATurn && outlet_.has_room(); ++entries) {
    ReplayInput* next = nullptr;
    for (auto& input : inputs_) {
      if (!input->at_end() && (next == nullptr || input->ts() < next->ts())) next = input.get();
    }
    if (next == nullptr) {
      TICKWIRE_HOT_EXEMPT_BEGIN("a replay's end, once")
      end();
      TICKWIRE_HOT_EXEMPT_END
      break;
    }
    next->process();
    TICKWIRE_HOT_EXEMPT_BEGIN("replay: reads and decompresses the file where live receives")
    next->read();
    TICKWIRE_HOT_EXEMPT_END
  }
  return entries;
}

void Replay::end() noexcept {
  for (auto& input : inputs_) input->end();
  at_end_ = true;
}

void Replay::count() noexcept {
  for (auto& input : inputs_) input->count();
}

std::vector<CaptureFacts> Replay::facts() const {
  std::vector<CaptureFacts> all;
  for (const auto& input : inputs_) input->tell(all.emplace_back());
  return all;
}

}  // namespace tickwire::engine
