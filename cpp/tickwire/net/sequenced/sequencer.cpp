#include "tickwire/net/sequenced/sequencer.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

constexpr std::size_t kLengthBytes = 2;
/// Kept of a claim at most: a session's first seconds are slow ones.
constexpr std::size_t kMostClaimed = 1024;
/// A claim is asked about again after so long, and any two are so far apart.
constexpr std::int64_t kAskAgainNs = 1'000'000'000;
constexpr std::int64_t kAskApartNs = 20'000'000;
/// A claim that was not heard of for so long is forgotten.
constexpr std::int64_t kClaimAgeNs = 60'000'000'000;

SequencerConfig checked(const SequencerConfig& config, const std::string& where) {
  const auto require = [&](bool held, const char* field, const char* expected, auto found) {
    if (!held) throw SetupError(where + '.' + field, expected, std::to_string(found));
  };
  require(config.lines >= 1, "lines", "1 or more", config.lines);
  require(config.max_packet_bytes >= kLengthBytes && config.max_packet_bytes <= 1U << 20U, "max_packet_bytes",
          "2 to 1048576", config.max_packet_bytes);
  require(config.window_packets >= 1 && config.window_packets <= 1U << 24U, "window_packets", "1 to 16777216",
          config.window_packets);
  constexpr std::int64_t kMostNs = std::int64_t{1} << 56;  // Two years: sums stay in range.
  for (const auto& [field, value] : {std::pair{"reorder_ns", config.reorder_ns},
                                     {"request_timeout_ns", config.request_timeout_ns},
                                     {"request_interval_ns", config.request_interval_ns},
                                     {"silence_ns", config.silence_ns},
                                     {"end_silence_ns", config.end_silence_ns},
                                     {"first_proof_ns", config.first_proof_ns}}) {
    require(value >= 0 && value <= kMostNs, field, "nanoseconds from 0 to 2^56", value);
  }
  if (config.request_attempts > 0) {
    require(config.request_timeout_ns > 0, "request_timeout_ns", "a positive number",
            config.request_timeout_ns);
    require(config.request_messages > 0, "request_messages", "a positive number", config.request_messages);
  }
  if (config.start == SequencerConfig::Start::Snapshot && !config.snapshots) {
    throw SetupError(where + ".start: a start from a snapshot needs a snapshot server");
  }
  return config;
}

std::size_t claim_packets_of(const SequencerConfig& config) {
  return std::clamp<std::size_t>(config.window_packets / Sequencer::kClaims, 1, kMostClaimed);
}

}  // namespace

Sequencer::Sequencer(SequencerHandler& handler, const SequencerConfig& config, const std::string& where,
                     Arena& arena)
    : handler_(handler),
      config_(checked(config, where)),
      lines_(arena.allocate<Line>(config.lines + std::size_t{1})),
      kept_(arena.allocate<Kept>(2 * config.window_packets)),
      free_places_(arena.allocate<std::uint32_t>(config.window_packets)),
      places_(arena.allocate<char>((config.window_packets + kClaims * claim_packets_of(config)) *
                                   config.max_packet_bytes)),
      views_(arena.allocate<MessageView>(config.max_packet_bytes / kLengthBytes)),
      claim_packets_(claim_packets_of(config)),
      claimed_(arena.allocate<Kept>(kClaims * claim_packets_)),
      heartbeats_(arena.allocate<std::uint32_t>(kClaims * lines_.size())),
      claimed_views_(arena.allocate<MessageView>(config.max_packet_bytes / kLengthBytes)) {
  for (Line& line : lines_) line.heard_at = std::numeric_limits<std::int64_t>::min();
  for (std::size_t i = 0; i < config_.window_packets; ++i) {
    free_places_[i] = static_cast<std::uint32_t>(config_.window_packets - 1 - i);
  }
  free_count_ = config_.window_packets;
}

// ---- What comes in ----

void Sequencer::on_packet(std::uint32_t line, const SessionId& session, std::uint64_t sequence,
                          std::span<const MessageView> messages, const Arrival& arrival,
                          std::int64_t now) noexcept {
  if (!is_ours(session, sequence) && !admit(line, session, sequence, messages, &arrival, now)) [[unlikely]]
    return;
  const std::uint64_t end = sequence + messages.size();
  Line& from = lines_[line];
  ++from.stats.packets;
  from.stats.received += messages.size();
  if (line != recovery_line()) {
    from.heard_at = heard_at_ = now;
    if (sequence > from.next) {
      if (from.next != 0) from.stats.gap += sequence - from.next;
    } else if (sequence < from.next) {
      from.stats.overtaken += std::min(end, from.next) - sequence;
    }
    from.next = std::max(from.next, end);
  }
  if (!joined_ && state_ != State::Suspect) [[unlikely]]
    join(sequence);
  if (end > end_) {
    end_ = end;
    end_at_ = now;
    if (end > end_number_) end_number_ = 0;  // It was not the end.
  }
  // The line that is ahead, and nothing missing: all of a good day.
  if (state_ == State::Live && sequence == expected_) [[likely]] {
    if (messages.empty()) return;
    from.stats.won += messages.size();
    expected_ = end;
    deliver({sequence, messages, arrival, line});
    if (end_number_ != 0) [[unlikely]]
      settle(now, false);
    return;
  }
  const std::uint64_t before = expected_;
  accept(line, sequence, messages, arrival, now);
  settle(now, line == recovery_line() && expected_ != before);
}

void Sequencer::on_heartbeat(std::uint32_t line, const SessionId& session, std::uint64_t next,
                             std::int64_t now) noexcept {
  if (!is_ours(session, next) && !admit(line, session, next, {}, nullptr, now)) [[unlikely]]
    return;
  if (line != recovery_line()) heard_at_ = now;
  note_end(line, next, now);
}

void Sequencer::on_end(std::uint32_t line, const SessionId& session, std::uint64_t next,
                       std::int64_t now) noexcept {
  if (!is_ours(session, next) && !admit(line, session, next, {}, nullptr, now)) [[unlikely]]
    return;
  // One that was repeated is no sign that the session goes on, and one before its end is none of its end.
  if (next >= end_ && end_number_ == 0) {
    heard_at_ = now;
    end_number_ = next;
  }
  note_end(line, next, now);
}

void Sequencer::note_end(std::uint32_t line, std::uint64_t next, std::int64_t now) noexcept {
  Line& from = lines_[line];
  ++from.stats.heartbeats;
  from.heard_at = now;
  if (next > from.next) {
    if (from.next != 0) from.stats.gap += next - from.next;
    from.next = next;
  }
  if (!joined_ && state_ != State::Suspect) join(next);
  if (next > end_) {
    end_ = next;
    end_at_ = now;
    if (next > end_number_) end_number_ = 0;
  }
  settle(now, false);
}

// ---- Claims ----

bool Sequencer::admit(std::uint32_t line, const SessionId& session, std::uint64_t number,
                      std::span<const MessageView> messages, const Arrival* arrival,
                      std::int64_t now) noexcept {
  const bool is_number = session == session_ && state_ != State::Empty;
  if (session == kNoSession) {
    ++stats_.other_session;
    return false;
  }
  if (line == recovery_line()) {
    // A server's word, if it is about something that we heard. An answer without a message may only repeat
    // what we asked.
    Claim* const claim = messages.empty() ? nullptr : find_claim(session, number);
    if (claim != nullptr) {
      adopt(*claim, now);
      return is_ours(session, number);
    }
    if (!messages.empty()) ++(is_number ? stats_.implausible : stats_.other_session);
    return false;
  }
  if (session == left_session_ && now < left_until_ && number + messages.size() <= left_end_) {
    LineStats& late = lines_[line].stats;
    ++(arrival != nullptr ? late.packets : late.heartbeats);
    late.received += messages.size();
    late.late += messages.size();
    return false;
  }
  if (state_ == State::Empty && config_.first_proof_ns == 0) {
    begin_session(session);
    return true;
  }
  ++(is_number ? stats_.implausible : stats_.other_session);
  refused_session_ = session;
  refused_number_ = number;
  Claim& claim = claim_of(session, number, now);
  ++claim.heard;
  claim.heard_at = now;
  claim.first = std::min(claim.first, number);
  claim.end = std::max(claim.end, number + messages.size());
  if (arrival != nullptr) {
    if (claim.kept == 0) claim.ask_at = now;  // Now there is something that a server can have.
    keep_claimed(claim, line, number, messages, *arrival, now);
  } else {
    ++heartbeats_of(claim)[line];
    if (number >= claim.heartbeat) {
      claim.heartbeat = number;
      claim.line = line;
    }
  }
  if (now >= claim.ask_at && now >= ask_at_) {
    claim.ask_at = now + kAskAgainNs;
    ask_at_ = now + kAskApartNs;
    // A heartbeat names the message that comes.
    handler_.on_claim(session, arrival != nullptr || number <= 1 ? number : number - 1);
  }
  plan_judgement(now);
  return false;
}

Sequencer::Claim* Sequencer::find_claim(const SessionId& session, std::uint64_t number) noexcept {
  for (Claim& claim : claims_) {
    // Of another session all numbers are one claim: which of them are right is seen when it is ours.
    if (claim.heard != 0 && claim.session == session &&
        (session != session_ || state_ == State::Empty ||
         (number + kMostAhead >= claim.first && number <= claim.end + kMostAhead))) {
      return &claim;
    }
  }
  return nullptr;
}

Sequencer::Claim& Sequencer::claim_of(const SessionId& session, std::uint64_t number,
                                      std::int64_t now) noexcept {
  if (Claim* const found = find_claim(session, number); found != nullptr) return *found;
  Claim* room = claims_.data();
  for (Claim& claim : claims_) {
    if (now - claim.heard_at > kClaimAgeNs) claim.heard = 0;
    if (claim.heard < room->heard || (claim.heard == room->heard && claim.heard_at < room->heard_at)) {
      room = &claim;
    }
  }
  *room = {.session = session,
           .first = number,
           .end = number,
           .heard = 0,
           .heartbeat = 0,
           .line = 0,
           .kept = 0,
           .since = now,
           .heard_at = now,
           .ask_at = now};
  const std::span<std::uint32_t> heartbeats = heartbeats_of(*room);
  std::fill(heartbeats.begin(), heartbeats.end(), 0U);
  return *room;
}

void Sequencer::keep_claimed(Claim& claim, std::uint32_t line, std::uint64_t first,
                             std::span<const MessageView> messages, const Arrival& arrival,
                             std::int64_t now) noexcept {
  if (messages.empty() || bytes_of(messages) > config_.max_packet_bytes) return;
  const std::size_t begin = static_cast<std::size_t>(&claim - claims_.data()) * claim_packets_;
  if (claim.kept == claim_packets_) return;  // The first ones are those that nobody sends again.
  const std::size_t at = begin + claim.kept++;
  const auto place = static_cast<std::uint32_t>(config_.window_packets + at);
  claimed_[at] = {first, static_cast<std::uint32_t>(messages.size()), line, arrival, now, place};
  store(place, messages);
}

/// It is proven: what was kept of it comes, in the order of its numbers.
void Sequencer::adopt(Claim& claim, std::int64_t now) noexcept {
  const std::size_t begin = static_cast<std::size_t>(&claim - claims_.data()) * claim_packets_;
  const std::span<Kept> kept = claimed_.subspan(begin, claim.kept);
  const Claim proven = claim;
  if (proven.session != session_ || state_ == State::Empty) {
    stats_.other_session -= proven.heard;
    leave_session(now);
    begin_session(proven.session);
  } else {
    stats_.implausible -= proven.heard;
    if (proven.first > end_) {
      end_ = proven.first;
      end_at_ = now;
    }
  }
  heard_at_ = now;
  std::sort(kept.begin(), kept.end(),
            [](const Kept& a, const Kept& b) noexcept { return a.first < b.first; });
  // Its place stays taken meanwhile: a number far beyond among them would be a claim of its own.
  claim.heard = std::numeric_limits<std::uint64_t>::max();
  claim.session = kNoSession;
  claim.heard_at = now;
  for (const Kept& one : kept) {
    on_packet(one.line, session_, one.first, load(one, claimed_views_), one.arrival, now);
  }
  const std::span<const std::uint32_t> heartbeats = heartbeats_of(claim);
  for (std::size_t line = 0; line < heartbeats.size(); ++line)
    lines_[line].stats.heartbeats += heartbeats[line];
  if (proven.heartbeat != 0) {
    --lines_[proven.line].stats.heartbeats;
    on_heartbeat(proven.line, session_, proven.heartbeat, now);
  }
  claim = {};
  plan_judgement(now);
}

void Sequencer::believe(const SessionId& session, std::int64_t now) noexcept {
  if (session == session_ && state_ != State::Empty) return;
  if (Claim* const claim = find_claim(session, 0); claim != nullptr) return adopt(*claim, now);
  leave_session(now);
  begin_session(session);
  heard_at_ = now;
}

/// When silence proves it, if nothing more comes of our stream; kNever where silence does not.
std::int64_t Sequencer::believable_at(const Claim& claim) const noexcept {
  if (claim.heard == 0 || claim.session == kNoSession) return kNever;
  if (state_ == State::Empty) return claim.since + config_.first_proof_ns;
  // Who has not been heard since then is as silent as ours.
  if (claim.heard_at <= heard_at_) return kNever;
  std::int64_t at = config_.silence_ns > 0 ? heard_at_ + config_.silence_ns : kNever;
  if (claim.session != session_ && is_over()) at = std::min(at, heard_at_ + config_.end_silence_ns);
  return at;
}

void Sequencer::plan_judgement(std::int64_t now) noexcept {
  judge_at_ = kNever;
  for (const Claim& claim : claims_) judge_at_ = std::min(judge_at_, std::max(now, believable_at(claim)));
}

/// Of the claims that may be believed, the one that was heard of most.
bool Sequencer::judge(std::int64_t now) noexcept {
  Claim* best = nullptr;
  for (Claim& claim : claims_) {
    if (believable_at(claim) > now) continue;
    if (best == nullptr || claim.heard > best->heard) best = &claim;
  }
  if (best == nullptr) {
    plan_judgement(now);
    return false;
  }
  adopt(*best, now);
  return true;
}

void Sequencer::leave_session(std::int64_t now) noexcept {
  left_session_ = session_;
  left_end_ = std::max(end_, expected_);
  left_until_ = now + config_.end_silence_ns;
  if (joined_ && state_ != State::Suspect && state_ != State::Empty && end_ > expected_) {
    stats_.lost += end_ - expected_;
    handler_.on_lost(expected_, end_ - expected_);
  }
}

void Sequencer::join(std::uint64_t sequence) noexcept {
  if (config_.start == SequencerConfig::Start::Snapshot && sequence != 1) return want_snapshot();
  joined_ = true;
  expected_ = config_.start == SequencerConfig::Start::Beginning ? 1 : sequence;
  skipped_end_ = expected_;
}

void Sequencer::begin_session(const SessionId& session) noexcept {
  while (anything_kept()) {
    lines_[front().line].stats.late += front().count;
    pop_front();
  }
  for (Line& line : lines_) line.next = 0;
  session_ = session;
  state_ = State::Live;
  joined_ = end_told_ = false;
  end_number_ = 0;
  snapshot_asked_ = std::numeric_limits<std::int64_t>::min();
  expected_ = end_ = asked_end_ = skipped_first_ = skipped_end_ = 0;
  attempts_ = 0;
  deadline_ = kNever;
  ++stats_.sessions;
  handler_.on_session(session_);
}

// ---- In order, and beyond a gap ----

void Sequencer::deliver(const Run& run) noexcept {
  stats_.delivered += run.messages.size();
  handler_.on_run(run);
}

void Sequencer::accept(std::uint32_t line, std::uint64_t sequence, std::span<const MessageView> messages,
                       const Arrival& arrival, std::int64_t now) noexcept {
  const std::uint64_t end = sequence + messages.size();
  std::uint64_t first = sequence;
  // Ends: every turn but the one after a give_up() shortens what is left, and give_up() leaves room.
  while (first < end) {
    if (joined_ && first < expected_) {
      const std::uint64_t upto = std::min(end, expected_);
      count_old(line, first, upto);
      first = upto;
    } else if (joined_ && first == expected_ && state_ != State::Suspect) {
      // Up to where another copy came first.
      const std::uint64_t upto = anything_kept() ? std::min(end, front().first) : end;
      lines_[line].stats.won += upto - first;
      expected_ = upto;
      deliver({first, messages.subspan(first - sequence, upto - first), arrival, line});
      first = upto;
      drain();
    } else {
      if (keep(line, first, messages.subspan(first - sequence), arrival, now)) return;
      ++stats_.window_full;
      if (state_ != State::Suspect) {
        give_up();
      } else if (anything_kept() && front().first < first) {
        // A snapshot is on its way, and the newest are the ones that it will not hold.
        lines_[front().line].stats.late += front().count;
        pop_front();
      } else {
        lines_[line].stats.late += end - first;
        return;
      }
    }
  }
}

/// Copies of numbers that the stream is past.
void Sequencer::count_old(std::uint32_t line, std::uint64_t first, std::uint64_t end) noexcept {
  const std::uint64_t from = std::max(first, skipped_first_);
  const std::uint64_t upto = std::min(end, skipped_end_);
  const std::uint64_t late = upto > from ? upto - from : 0;
  lines_[line].stats.late += late;
  lines_[line].stats.duplicate += end - first - late;
}

/// Delivers what is kept as far as it follows.
void Sequencer::drain() noexcept {
  while (anything_kept() && front().first <= expected_) {
    const Kept kept = front();
    // A snapshot may have gone past the beginning of it, or past all of it.
    const std::uint64_t old = std::min<std::uint64_t>(expected_ - kept.first, kept.count);
    LineStats& stats = lines_[kept.line].stats;
    stats.late += old;
    stats.won += kept.count - old;
    if (old < kept.count) {
      const std::uint64_t sequence = expected_;
      expected_ = kept.first + kept.count;
      deliver({sequence, load(kept, views_).subspan(old), kept.arrival, kept.line});
    }
    pop_front();
  }
}

/// Keeps the messages from number `first` on, but those of which a copy is kept already. False, and nothing
/// changed, where there is no room.
bool Sequencer::keep(std::uint32_t line, std::uint64_t first, std::span<const MessageView> messages,
                     const Arrival& arrival, std::int64_t now) noexcept {
  if (bytes_of(messages) > config_.max_packet_bytes) [[unlikely]] {
    ++stats_.oversized;
    lines_[line].stats.late += messages.size();
    return true;
  }
  const std::uint64_t end = first + messages.size();
  Kept* const begin = kept_.data() + begin_;
  Kept* const past = kept_.data() + end_of_kept_;
  // Nearly always the newest so far.
  Kept* const after = past == begin || (past - 1)->first + (past - 1)->count <= first
                          ? past
                          : std::partition_point(begin, past, [first](const Kept& kept) {
                              return kept.first + kept.count <= first;
                            });

  std::size_t parts = 0;
  std::uint64_t at = first;
  for (const Kept* next = after; at < end; ++next) {
    const std::uint64_t upto = next == past ? end : std::min(end, std::max(at, next->first));
    if (upto > at) ++parts;
    if (upto == end) break;
    at = next->first + next->count;
  }
  if (parts > free_count_) return false;

  std::size_t position = static_cast<std::size_t>(after - begin);
  at = first;
  while (at < end) {
    const bool last = begin_ + position == end_of_kept_;
    const std::uint64_t upto = last ? end : std::min(end, std::max(at, kept_[begin_ + position].first));
    if (upto > at) {
      const std::uint32_t place = free_places_[--free_count_];
      store(place, messages.subspan(at - first, upto - at));
      insert(position++, {at, static_cast<std::uint32_t>(upto - at), line, arrival, now, place});
    }
    if (upto == end) break;
    const Kept& copy = kept_[begin_ + position++];
    const std::uint64_t covered = std::min(end, copy.first + copy.count);
    lines_[line].stats.duplicate += covered - upto;
    at = covered;
  }
  stats_.most_kept = std::max<std::uint64_t>(stats_.most_kept, end_of_kept_ - begin_);
  return true;
}

std::size_t Sequencer::bytes_of(std::span<const MessageView> messages) noexcept {
  std::size_t bytes = 0;
  for (const MessageView& message : messages) bytes += kLengthBytes + message.size();
  return bytes;
}

void Sequencer::store(std::uint32_t place, std::span<const MessageView> messages) noexcept {
  char* out = places_.data() + place * config_.max_packet_bytes;
  for (const MessageView& message : messages) {
    const auto bytes = static_cast<std::uint16_t>(message.size());
    std::memcpy(out, &bytes, sizeof bytes);
    if (bytes != 0) std::memcpy(out + sizeof bytes, message.data(), bytes);
    out += sizeof bytes + bytes;
  }
}

/// Holds until the next call.
std::span<const MessageView> Sequencer::load(const Kept& kept, std::span<MessageView> views) noexcept {
  const char* at = places_.data() + kept.place * config_.max_packet_bytes;
  for (std::uint32_t i = 0; i < kept.count; ++i) {
    std::uint16_t bytes;
    std::memcpy(&bytes, at, sizeof bytes);
    views[i] = {at + sizeof bytes, bytes};
    at += sizeof bytes + bytes;
  }
  return views.first(kept.count);
}

/// `at` counts from the front.
void Sequencer::insert(std::size_t at, const Kept& kept) noexcept {
  if (end_of_kept_ == kept_.size()) {
    std::copy(kept_.begin() + static_cast<std::ptrdiff_t>(begin_), kept_.end(), kept_.begin());
    end_of_kept_ -= begin_;
    begin_ = 0;
  }
  Kept* const position = kept_.data() + begin_ + at;
  std::copy_backward(position, kept_.data() + end_of_kept_, kept_.data() + end_of_kept_ + 1);
  *position = kept;
  ++end_of_kept_;
}

void Sequencer::pop_front() noexcept {
  free_places_[free_count_++] = front().place;
  if (++begin_ == end_of_kept_) begin_ = end_of_kept_ = 0;
}

// ---- The gap in front ----

/// After every change: which gap is in front, and until when may it stay? `answered`: the re-request server
/// brought something new.
void Sequencer::settle(std::int64_t now, bool answered) noexcept {
  if (state_ == State::Suspect) return;
  const std::uint64_t end = gap_end();
  if (end == expected_) {
    state_ = State::Live;
    deadline_ = kNever;
    asked_end_ = 0;
    attempts_ = 0;
    if (end_number_ != 0 && expected_ >= end_number_) {
      if (!std::exchange(end_told_, true)) handler_.on_end_of_session();
      plan_judgement(now);
    }
    return;
  }
  if (state_ == State::Live) ++stats_.gaps;
  if (asked_end_ != 0) {
    if (answered && expected_ <= asked_end_) {
      // As much as fitted into its answer, or as much as we may ask for at once: the rest.
      attempts_ = 0;
      return ask(now);
    }
    if (expected_ < asked_end_) return;                               // Its timer runs.
    if (state_ == State::Waiting && expected_ == asked_end_) return;  // Until the rest may be asked for.
    asked_end_ = 0;  // Something else has filled it, and this is another gap.
    attempts_ = 0;
    state_ = State::Live;
    ++stats_.gaps;
  }
  state_ = State::Waiting;
  deadline_ = std::max(now, (anything_kept() ? front().since : end_at_) + config_.reorder_ns);
  if (config_.request_attempts > 0) deadline_ = std::max(deadline_, next_request_);
}

bool Sequencer::on_deadline(std::int64_t now) noexcept {
  if (now >= judge_at_ && judge(now)) return true;
  if (now < deadline_) return false;
  end_wait(now);
  return true;
}

void Sequencer::finish() noexcept {
  // Each turn is a try fewer, or a gap.
  while (deadline_ != kNever) end_wait(deadline_);
}

/// Of the gap in front.
void Sequencer::end_wait(std::int64_t now) noexcept {
  if (state_ == State::Requesting) ++stats_.request_timeouts;
  if (attempts_ >= config_.request_attempts) {
    give_up();
    settle(now, false);
  } else {
    ask(now);
  }
}

void Sequencer::ask(std::int64_t now) noexcept {
  if (now < next_request_) {
    state_ = State::Waiting;
    deadline_ = next_request_;
    return;
  }
  const std::uint64_t missing = gap_end() - expected_;
  const auto count = static_cast<std::uint32_t>(std::min<std::uint64_t>(missing, config_.request_messages));
  state_ = State::Requesting;
  asked_end_ = expected_ + count;
  ++attempts_;
  ++stats_.requests;
  stats_.requested += count;
  next_request_ = now + config_.request_interval_ns;
  deadline_ = now + config_.request_timeout_ns;
  handler_.on_request(session_, expected_, count);
}

/// What was kept before the last snapshot was asked for and lies beyond it: the server that gave it knew of
/// no such message, and no server has what lies between, so it never was. What came while the snapshot was
/// taken may be newer than it, and is a gap like any other.
bool Sequencer::drop_refuted() noexcept {
  const bool is_old = (anything_kept() ? front().since : end_at_) < snapshot_asked_;
  if (!is_old) return false;
  std::size_t to = begin_;
  for (std::size_t i = begin_; i < end_of_kept_; ++i) {
    if (kept_[i].since >= snapshot_asked_) {
      kept_[to++] = kept_[i];
      continue;
    }
    lines_[kept_[i].line].stats.late += kept_[i].count;
    free_places_[free_count_++] = kept_[i].place;
  }
  end_of_kept_ = to;
  if (!anything_kept()) begin_ = end_of_kept_ = 0;
  ++stats_.implausible;
  refused_session_ = session_;
  refused_number_ = end_;
  if (end_at_ < snapshot_asked_) {
    end_ = anything_kept() ? kept_[end_of_kept_ - 1].first + kept_[end_of_kept_ - 1].count : expected_;
  }
  state_ = State::Live;
  asked_end_ = 0;
  attempts_ = 0;
  return true;
}

void Sequencer::give_up() noexcept {
  if (drop_refuted()) return;
  const std::uint64_t end = gap_end();
  stats_.lost += end - expected_;
  asked_end_ = 0;
  attempts_ = 0;
  handler_.on_lost(expected_, end - expected_);
  if (config_.snapshots) return want_snapshot();
  skipped_first_ = expected_;
  skipped_end_ = expected_ = end;
  state_ = State::Live;
  drain();
}

void Sequencer::suspend() noexcept {
  if (state_ == State::Suspect || state_ == State::Empty) return;
  state_ = State::Suspect;
  deadline_ = kNever;
  asked_end_ = 0;
  attempts_ = 0;
}

void Sequencer::want_snapshot() noexcept {
  state_ = State::Suspect;
  deadline_ = kNever;
  ++stats_.snapshots_wanted;
  handler_.on_want_snapshot();
}

bool Sequencer::resume(std::uint64_t next, std::int64_t asked, std::int64_t now) noexcept {
  if (!can_resume(next)) {
    if (state_ == State::Suspect) ++stats_.snapshots_too_old;
    return false;
  }
  ++stats_.snapshots_used;
  skipped_first_ = joined_ ? expected_ : 0;
  skipped_end_ = expected_ = next;
  joined_ = true;
  if (next > end_) {
    end_ = next;
    end_at_ = now;
  }
  state_ = State::Live;
  snapshot_asked_ = asked;
  drain();
  settle(now, false);
  return true;
}

}  // namespace tickwire::net
