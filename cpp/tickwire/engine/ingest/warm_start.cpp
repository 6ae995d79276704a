#include "tickwire/engine/ingest/warm_start.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tickwire/core/error.hpp"

namespace tickwire::engine {

namespace {

using venue::binance::Outcome;

constexpr int kLinesATurn = 256;  // Bounds a turn, so that the connections and stop() are served.
constexpr std::size_t kKeptBytes = 32U << 20U;  // What a busy feed brings while it is joined.
constexpr std::uint64_t kCheckLines =
    200'000;  // A capture that says nothing of ours in so many is another's.

std::int64_t monotonic_ns() noexcept TICKWIRE_HOT { return tsc_to_ns(tsc_now()); }

std::string grouped(std::uint64_t value) {
  std::string digits = std::to_string(value);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string seconds(std::int64_t ns) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), ".%03d s", static_cast<int>(ns / 1'000'000 % 1000));
  return grouped(static_cast<std::uint64_t>(ns / 1'000'000'000)) + text.data();
}

/// Is this a file of a run's recording: 000001.log, 000002.log …?
bool is_segment(const std::filesystem::path& file) {
  const std::string stem = file.stem().string();
  return stem.size() == 6 && stem.find_first_not_of("0123456789") == std::string::npos;
}

bool holds(std::span<const char> message, std::string_view text) {
  return ::memmem(message.data(), message.size(), text.data(), text.size()) != nullptr;
}

/// Set-up: is this file a capture of this feed? Throws SetupError; false where it says nothing of it either
/// way.
bool check_warm_file(const FeedConfig& config, venue::binance::Decoder& decoder, const std::string& path) {
  md::CaptureReader reader({path});
  const bool is_spot = config.market == venue::binance::Market::Spot;
  std::uint64_t messages = 0;
  std::uint64_t of_others = 0;
  std::uint64_t unreadable = 0;
  for (const md::CaptureLine* line = nullptr; messages < kCheckLines && (line = reader.next()) != nullptr;) {
    if (line->kind != md::CaptureKind::Message) continue;
    ++messages;
    // A book change of futures names the one before it, one of spot does not.
    if (holds(line->body, "\"depthUpdate\"") && holds(line->body, "\"pu\"") == is_spot) {
      throw SetupError("warm capture " + path,
                       is_spot ? "the spot market's messages" : "a futures market's messages",
                       is_spot ? "a futures market's" : "the spot market's");
    }
    md::Event event;
    const Outcome outcome = decoder.decode(line->body, RecvClock::Recorded, line->ts_recv, event);
    of_others += outcome == Outcome::UnknownSymbol ? 1 : 0;
    unreadable += outcome == Outcome::Malformed ? 1 : 0;
    if (outcome == Outcome::Event && event.kind == md::EventKind::BookDiff) return true;
  }
  // What a run wrote last may be too short to say anything, and a file that is empty but for our own lines
  // says nothing wrong.
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const bool of_a_run =
      is_segment(path) && std::count_if(config.warm.begin(), config.warm.end(), [&](const auto& other) {
                            return std::filesystem::path(other).parent_path() == folder;
                          }) > 1;
  if (of_a_run || (config.warm.size() > 1 && messages == 0 && reader.error().empty())) return false;
  std::string found = "no message";
  if (messages != 0) {
    found = "none in " + grouped(messages) + (messages == 1 ? " message" : " messages");
    if (of_others != 0) found += "; " + grouped(of_others) + " are of other instruments";
    if (unreadable != 0) found += "; " + grouped(unreadable) + " cannot be read";
  }
  if (!reader.error().empty()) found += "; " + reader.error();
  throw SetupError("warm capture " + path, "book changes of the instruments of the feed " + config.name,
                   found);
}

/// Set-up: are these captures of this feed? Throws SetupError. Returns those to be read: a run that began
/// warm has in its own recording what it read of others, so nothing before that is read a second time.
std::vector<std::string> check_warm(const FeedConfig& config, venue::binance::Decoder& decoder) {
  std::size_t first = 0;
  bool any = false;
  for (std::size_t i = 0; i < config.warm.size(); ++i) {
    any = check_warm_file(config, decoder, config.warm[i]) || any;
    md::CaptureReader reader({config.warm[i]});
    const md::CaptureLine* const line = reader.next();
    if (line != nullptr && line->kind == md::CaptureKind::Warm) first = i;
  }
  if (!any) {
    throw SetupError("warm capture " + config.warm.front() + " and what follows it",
                     "book changes of the instruments of the feed " + config.name, "none");
  }
  return {config.warm.begin() + static_cast<std::ptrdiff_t>(first), config.warm.end()};
}

}  // namespace

WarmStart::NextFile::NextFile(const std::string& newest) {
  const std::filesystem::path file(newest);
  if (!is_segment(file)) return;
  number_ = std::stoul(file.stem().string());
  folder_ = (file.has_parent_path() ? file.parent_path().string() : ".") + "/";
  extension_ = file.extension().string();
  path_.reserve(folder_.size() + 32 + extension_.size());
}

bool WarmStart::NextFile::advance() noexcept {
  if (folder_.empty()) return false;
  std::array<char, 32> number;
  std::snprintf(number.data(), number.size(), "%06lu", number_ + 1);
  // Within what was reserved.
  path_.assign(folder_).append(number.data()).append(extension_);
  struct stat seen{};
  if (::stat(path_.c_str(), &seen) != 0 || !S_ISREG(seen.st_mode)) return false;
  ++number_;
  return true;
}

WarmStart::WarmStart(PriceFeed& feed, SnapshotDesk& desk, const FeaturesConfig& features,
                     const UtcClock& clock, Arena& arena)
    : feed_(feed),
      desk_(desk),
      clock_(clock),
      windows_on_recv_(features.clock == WindowClock::Recv),
      compares_clocks_(windows_on_recv_ || feed.config().stale_after_ns != 0),
      reader_(check_warm(feed.config(), feed.decoder()), md::CaptureReaderConfig{.follow = true}),
      next_file_(feed.config().warm.back()),
      join_(feed.size(), feed.connections(), needs_trades(features), compares_clocks_, arena, kKeptBytes),
      captured_(feed.size()),
      seen_(feed.size()),
      went_on_(feed.size()) {
  feed_.mute();
  feed_.divert(this);
}

void WarmStart::start() noexcept {
  line_ = reader_.next();
  if (feed_.tap() != nullptr) feed_.tap()->warm(line_ != nullptr ? line_->ts_recv : clock_.now());
}

int WarmStart::turn() noexcept {
  switch (state_) {
    case State::Reading: {
      const int lines = read();
      if (line_ != nullptr) return lines;
      state_ = State::Joining;
      joining_ns_ = monotonic_ns();
      feed_.start_connections();
      return lines + 1;
    }
    case State::Joining: {
      const int lines = read();
      if (line_ != nullptr || !decide()) {
        if (!waits_.load() && !join_.heard() && monotonic_ns() - joining_ns_ >= WarmJoin::kWriterLagNs)
          waits_.publish(true);
        return lines;
      }
      state_ = State::HandingOn;
      return lines + 1;
    }
    case State::HandingOn: return hand_on(false);
    case State::Settling:
      if (monotonic_ns() - live_ns_ < WarmJoin::kMostLagNs) return 0;
      state_ = State::Over;
      feed_.divert(nullptr);
      return 1;
    case State::Over: return 0;
  }
  return 0;
}

/// What the capture has, as far as the recorder takes it; a turn's worth.
int WarmStart::read() noexcept {
  if (line_ == nullptr) {
    if (monotonic_ns() - looked_ns_ < kPollNs) return 0;
    looked_ns_ = monotonic_ns();
    line_ = reader_.next();
    if (line_ == nullptr) {
      // Once a file is full: what was written behind our last look at the one before it is read first.
      if (!next_file_.advance()) return 0;
      reader_.add(next_file_.path());
      line_ = reader_.next();
    }
  }
  int lines = 0;
  feed_.listen(this);
  for (; lines < kLinesATurn && line_ != nullptr; ++lines) {
    if (feed_.tap() != nullptr && !feed_.tap()->has_room(line_->body.size())) break;
    feed_.play(*line_);
    line_ = reader_.next();
  }
  feed_.listen(nullptr);
  if (lines != 0) captured_ns_ = monotonic_ns();
  return lines;
}

void WarmStart::on_message(std::span<const char>, Outcome outcome, const md::Event& event,
                           std::string_view) noexcept {
  if (outcome != Outcome::Event) return;
  seen_[event.instrument].named = true;
  if (event.kind == md::EventKind::BookDiff && compares_clocks_)
    join_.captured_diff(event.instrument, event.last_id, event.ts_recv, event.ts_event);
}

void WarmStart::on_snapshot(InstrumentId instrument) noexcept {
  seen_[instrument].named = seen_[instrument].snapshot = true;
}

void WarmStart::on_missing_trades(InstrumentId instrument, std::uint64_t first, std::uint64_t last) noexcept {
  seen_[instrument].lacks_from = first;
  seen_[instrument].lacks_to = last;
}

bool WarmStart::decide() noexcept {
  const TsNs now = clock_.now();
  for (std::size_t i = 0; i < captured_.size(); ++i) {
    const PriceLane& lane = feed_.lane(i);
    captured_[i] = {.valid = lane.pipeline.state() == md::BookState::Valid,
                    .diff_id = lane.pipeline.sequence(),
                    .trade_id = lane.trade_id,
                    .epoch = lane.pipeline.epoch(),
                    .lacks_trades = lane.pipeline.missing_trades() != 0,
                    .may_become_valid = seen_[i].named,
                    .ahead_ns = compares_clocks_ ? ahead_of(lane, now) : 0};
  }
  if (!join_.decide(captured_, captured_ns_, monotonic_ns())) return false;
  for (std::size_t i = 0; i < captured_.size(); ++i) {
    PriceLane& lane = feed_.lane(i);
    seen_[i].end = lane.fresh;
    seen_[i].state = lane.pipeline.state();
    if (join_.verdict(i) == WarmJoin::Verdict::Continues) {
      lane.diff_id = lane.pipeline.sequence();
    } else {
      feed_.restart(lane, now);
    }
  }
  return true;
}

/// By how much what the lane takes for the present is ahead of it.
std::int64_t WarmStart::ahead_of(const PriceLane& lane, TsNs now) const noexcept {
  return std::max(windows_on_recv_ ? lane.pipeline.clock() : kNoTime, lane.fresh) - now;
}

// ---------------------------------------------------------------------------------------------------
// What the connections bring

bool WarmStart::on_up(std::uint32_t conn) noexcept {
  if (state_ != State::Joining) return false;
  join_.up(conn, monotonic_ns());
  return true;
}

bool WarmStart::on_down(std::uint32_t conn) noexcept {
  if (state_ == State::Joining) {
    join_.down(conn, monotonic_ns());
    return true;
  }
  if (state_ == State::HandingOn) hand_on_all();  // What it brought comes before its end.
  return false;
}

void WarmStart::on_message(std::uint32_t conn, const net::WebSocketMessage& message) noexcept {
  const LineEvent event = feed_.line_event(message.payload);
  if (event.kind != LineEvent::Kind::Control && state_ != State::Settling) {
    if (join_.keep(conn, event, message, monotonic_ns())) return;
    if (state_ == State::Joining) {
      join_.forget(monotonic_ns());
      (void)join_.keep(conn, event, message, monotonic_ns());
      return;
    }
    hand_on_all();
  }
  const bool is_event = event.kind != LineEvent::Kind::Control && event.kind != LineEvent::Kind::Damaged;
  if (is_event && feed_.line_has(event)) return;
  feed_.message(conn, message.payload, message.recv_clock, message.ts_recv, message.unseen_ns);
}

void WarmStart::hand_on_all() noexcept {
  TICKWIRE_HOT_EXEMPT_BEGIN("a warm start's last step, at once because something cannot wait behind it")
  (void)hand_on(true);
  TICKWIRE_HOT_EXEMPT_END
}

int WarmStart::hand_on(bool all) noexcept {
  int messages = 0;
  for (WarmJoin::Kept kept; all || messages < kLinesATurn; ++messages) {
    if (!join_.front(kept)) {
      end();
      break;
    }
    const net::WebSocketMessage& message = kept.message;
    if (!all && feed_.tap() != nullptr && !feed_.tap()->has_room(message.payload.size())) break;
    if (!feed_.line_has(kept.event))
      feed_.message(kept.conn, message.payload, message.recv_clock, message.ts_recv);
    join_.pop();
  }
  return messages;
}

void WarmStart::end() noexcept {
  feed_.go_live(clock_.now());
  state_ = State::Settling;
  live_ns_ = monotonic_ns();
  feed_.report_capture(reader_);
  for (std::size_t i = 0; i < captured_.size(); ++i) {
    const PriceLane& lane = feed_.lane(i);
    if (lane.pipeline.wants_snapshot()) desk_.ask(lane.id);
    went_on_[i] = {.valid = lane.pipeline.state() == md::BookState::Valid,
                   .epoch = lane.pipeline.epoch(),
                   .row = lane.pipeline.row()};
  }
  told_.publish(true);
}

// ---------------------------------------------------------------------------------------------------
// For people

/// What became of an instrument, for people.
std::string WarmStart::verdict(std::size_t instrument) const {
  using Verdict = WarmJoin::Verdict;
  const WentOn& went_on = went_on_[instrument];
  const Seen& seen = seen_[instrument];
  const WarmJoin::Captured& captured = captured_[instrument];
  const LineEvent& diff = join_.first_diff(instrument);
  const LineEvent& trade = join_.first_trade(instrument);
  const std::string cold = "; not contiguous, starts cold";
  switch (join_.verdict(instrument)) {
    case Verdict::Continues:
      if (!went_on.valid)
        return "the feed did not follow the capture's id " + grouped(captured.diff_id) + ", starts cold";
      return "continues the capture at id " + grouped(captured.diff_id) + ", in epoch " +
             std::to_string(went_on.epoch) + " after row " + grouped(went_on.row);
    case Verdict::NoBook:
      if (!seen.named) return "the capture never names it, starts cold";
      if (!seen.snapshot)
        return "the capture has no snapshot of its book (a run's later file, without its first?), starts "
               "cold";
      if (seen.state == md::BookState::Empty) return "the capture ends with its connection down, starts cold";
      return "the capture ends while its book is " + std::string(md::name_of(seen.state)) +
             " and waits for a snapshot, starts cold";
    case Verdict::BookGap: {
      const TsNs gap = join_.first_diff_ts(instrument) - seen.end;
      return "the capture ends at id " + grouped(captured.diff_id) + ", " +
             seconds(std::max<TsNs>(gap, -gap)) + (gap >= 0 ? " before" : " after") +
             " the feed's first, which follows id " + grouped(diff.previous_id) + cold;
    }
    case Verdict::TradeGap:
      return (captured.trade_id == 0 ? std::string("the capture has no trade")
                                     : "the capture's last trade is " + grouped(captured.trade_id)) +
             ", the feed's first is " + grouped(trade.last_id) + cold;
    case Verdict::TradeHole:
      return "the capture lacks " +
             (seen.lacks_from == seen.lacks_to ? "trade " : "trades " + grouped(seen.lacks_from) + " to ") +
             grouped(seen.lacks_to) + cold;
    case Verdict::Clock: {
      const std::int64_t ahead_ns = join_.clock_ahead_ns(instrument);
      return "the capture's clock is " + seconds(std::max(ahead_ns, -ahead_ns)) +
             (ahead_ns > 0 ? " ahead of ours" : " behind ours") + ", starts cold";
    }
    case Verdict::Silent:
      return "the capture ends at id " + grouped(captured.diff_id) + ", and the feed said nothing of its " +
             (diff.last_id != 0 ? "trades" : "book") + " that would continue it" + cold;
  }
  return {};
}

std::vector<std::string> WarmStart::verdicts() const {
  const FeedConfig& config = feed_.config();
  std::vector<std::string> lines;
  for (const md::CaptureStamps& of : reader_.stamps()) {
    lines.push_back("warm: " + config.name + " " + of.file + ": receive stamps " +
                    (of.as_nanoseconds ? "are taken for nanoseconds, and look like " : "are ") +
                    std::string(md::name_of(of.form)));
  }
  for (std::size_t i = 0; i < captured_.size(); ++i)
    lines.push_back("warm: " + config.name + " " + config.instruments[i].symbol + ": " + verdict(i));
  return lines;
}

std::vector<std::string> WarmStart::report() const {
  if (told_.observe()) return verdicts();
  if (waits_.observe()) return {"warm: " + feed_.config().name + ": waits for the feed"};
  return {};
}

}  // namespace tickwire::engine
