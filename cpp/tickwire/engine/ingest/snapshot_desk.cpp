#include "tickwire/engine/ingest/snapshot_desk.hpp"

#include <algorithm>
#include <cstring>

#include "tickwire/engine/error_kinds.hpp"

namespace tickwire::engine {

namespace {

constexpr std::size_t kRequestSlots = 1024;
constexpr std::int64_t kAnswerTimeoutNs = 60'000'000'000;  // The control plane's own limits are shorter.
constexpr std::uint32_t kAttemptsWhileItFits = 3;          // At most four times half the configured pause.
constexpr std::int64_t kMaxBackoffNs = 60'000'000'000;
constexpr std::int64_t kMaxDepthPauseNs =
    320'000'000'000;                                      // Doubled up to it while they contradict the book.
constexpr std::int64_t kHealthyAfterNs = 10'000'000'000;  // Then a loss is a new one, not the old one again.

std::int64_t monotonic_ns() noexcept TICKWIRE_HOT { return tsc_to_ns(tsc_now()); }

}  // namespace

SnapshotDesk::SnapshotDesk(concurrent::Waker& control, concurrent::Waker& agent, const UtcClock& clock,
                           metrics::ErrorLog& errors, Arena& arena)
    : control_(control),
      agent_(agent),
      clock_(clock),
      errors_(errors),
      requests_(arena, sizeof(SnapshotRequest), kRequestSlots),
      answers_(arena, 2 * kMaxAnswerBytes) {}

void SnapshotDesk::add(const FeedConfig& feed, std::uint32_t number, InstrumentId first,
                       PriceCounters& counters) {
  if (feeds_.empty()) first_ = first;
  feeds_.push_back(std::make_unique<Feed>(
      Feed{number, feed.snapshot_retries, feed.snapshot_backoff_ns, feed.snapshot_limit, counters}));
  entries_.resize(first - first_);
  for (const InstrumentConfig& instrument : feed.instruments) {
    entries_.push_back({.feed = feeds_.back().get(), .symbol = instrument.symbol});
  }
}

bool SnapshotDesk::deliver(const Command& command, std::string_view body) noexcept {
  const InstrumentId at = command.instrument - first_;
  if (at >= entries_.size() || entries_[at].feed == nullptr) return false;
  std::byte* const place = answers_.try_claim(sizeof command + body.size() + kPaddingBytes);
  if (place == nullptr) return false;
  std::memcpy(place, &command, sizeof command);
  if (!body.empty()) std::memcpy(place + sizeof command, body.data(), body.size());
  answers_.publish();
  agent_.notify();
  return true;
}

/// The oldest answer; there is one.
SnapshotDesk::Answer SnapshotDesk::front() noexcept {
  const std::span<const std::byte> record = answers_.front();
  Answer answer{};
  std::memcpy(&answer.command, record.data(), sizeof answer.command);
  answer.body = {reinterpret_cast<const char*>(record.data()) + sizeof answer.command,
                 record.size() - sizeof answer.command - kPaddingBytes};
  const Entry& entry = entry_of(answer.command.instrument);
  // A reply that nobody waits for any more, as after a re-connect, would be older than the buffer.
  answer.awaited = entry.state == State::Requested;
  answer.limit = entry.feed->limit;
  return answer;
}

void SnapshotDesk::failed(const Command& command, std::span<const char> why) noexcept {
  Entry& entry = entry_of(command.instrument);
  entry.feed->counters.snapshots_failed.add(1);
  report(errors_, ErrorKind::SnapshotFailed, {why.data(), why.size()}, clock_.now());
  if (command.pause_ns > 0) {
    held_back(entry, command.pause_ns);
  } else {
    refused(command.instrument);
  }
}

/// The venue has said when it may be asked again: that is no try that failed. Where it is far off, the
/// control plane is asked sooner, so that its words stay true.
void SnapshotDesk::held_back(Entry& entry, std::int64_t pause_ns) noexcept {
  if (entry.attempts > 0) --entry.attempts;
  entry.state = State::WaitingToRetry;
  // No sooner than after a first try, whatever the venue would allow.
  const std::int64_t least_ns = std::min(entry.feed->backoff_ns, kMaxBackoffNs);
  entry.due_ns = monotonic_ns() + std::clamp(pause_ns, least_ns, kMaxBackoffNs);
}

void SnapshotDesk::ask(InstrumentId instrument) noexcept {
  Entry& entry = entry_of(instrument);
  std::byte* const slot = requests_.try_claim();
  if (slot == nullptr) {
    // The control plane is behind by a thousand requests: ask again with the next turn of the timer.
    entry.state = State::WaitingToRetry;
    entry.due_ns = monotonic_ns();
    return;
  }
  ++entry.attempts;
  const SnapshotRequest request{entry.feed->number, instrument, entry.attempts};
  std::memcpy(slot, &request, sizeof request);
  requests_.publish();
  control_.notify();
  entry.feed->counters.snapshot_requests.add(1);
  entry.state = State::Requested;
  entry.due_ns = monotonic_ns() + kAnswerTimeoutNs;
}

void SnapshotDesk::need(InstrumentId instrument) noexcept {
  Entry& entry = entry_of(instrument);
  if (entry.state != State::NotWanted) return;
  // A book that lasted is asked for at once; one that breaks again and again, after a pause.
  if (entry.valid_since_ns != 0 && monotonic_ns() - entry.valid_since_ns >= kHealthyAfterNs)
    entry.attempts = 0;
  if (entry.attempts == 0) {
    ask(instrument);
  } else {
    refused(instrument);
  }
}

void SnapshotDesk::need_depth(InstrumentId instrument) noexcept {
  Entry& entry = entry_of(instrument);
  if (entry.state != State::NotWanted) return;
  const std::int64_t now = monotonic_ns();
  if (now < entry.depth_due_ns) return;
  entry.depth_due_ns = now + entry.depth_pause_ns;
  entry.attempts = 0;
  ask(instrument);
}

void SnapshotDesk::came(InstrumentId instrument) noexcept {
  Entry& entry = entry_of(instrument);
  if (entry.state == State::Requested) entry.state = State::NotWanted;
}

void SnapshotDesk::refused(InstrumentId instrument) noexcept {
  // Doubling pauses with jitter; after the allowed number of attempts the instrument stays suspect and
  // is tried once a minute, which no venue takes amiss.
  Entry& entry = entry_of(instrument);
  const Feed& feed = *entry.feed;
  std::int64_t pause_ns = kMaxBackoffNs;
  if (entry.attempts < feed.retries) {
    const std::uint32_t doublings = std::min<std::uint32_t>(entry.attempts, 16);
    pause_ns = std::min(kMaxBackoffNs, feed.backoff_ns << doublings >> 1U);
    pause_ns =
        pause_ns / 2 + static_cast<std::int64_t>(tsc_now() % static_cast<std::uint64_t>(pause_ns / 2 + 1));
  } else if (entry.attempts == feed.retries) {
    feed.counters.snapshots_given_up.add(1);
    report(errors_, ErrorKind::SnapshotGivenUp, entry.symbol, clock_.now());
  }
  entry.state = State::WaitingToRetry;
  entry.due_ns = monotonic_ns() + pause_ns;
}

void SnapshotDesk::merged(InstrumentId instrument) noexcept {
  entry_of(instrument).depth_pause_ns = kDepthPauseNs;
}

void SnapshotDesk::contradicted(InstrumentId instrument) noexcept {
  Entry& entry = entry_of(instrument);
  entry.depth_pause_ns = std::min(2 * entry.depth_pause_ns, kMaxDepthPauseNs);
  entry.depth_due_ns = monotonic_ns() + entry.depth_pause_ns;
}

void SnapshotDesk::valid(InstrumentId instrument) noexcept {
  Entry& entry = entry_of(instrument);
  entry.valid_since_ns = monotonic_ns();
  // A snapshot that fitted is no reason to give up, so the pauses grow no longer than this.
  entry.attempts = std::min(entry.attempts, kAttemptsWhileItFits);
}

void SnapshotDesk::forget(InstrumentId instrument) noexcept {
  Entry& entry = entry_of(instrument);
  entry.state = State::NotWanted;
  entry.attempts = 0;
}

void SnapshotDesk::check() noexcept {
  const std::int64_t now = monotonic_ns();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.state == State::NotWanted || now < entry.due_ns) continue;
    const InstrumentId instrument = first_ + static_cast<InstrumentId>(i);
    if (entry.state == State::Requested) {
      report(errors_, ErrorKind::SnapshotTimeout, entry.symbol, clock_.now());
      entry.feed->counters.snapshots_failed.add(1);
      refused(instrument);
    } else {
      ask(instrument);
    }
  }
}

}  // namespace tickwire::engine
