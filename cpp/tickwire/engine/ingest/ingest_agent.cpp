#include "tickwire/engine/ingest/ingest_agent.hpp"

#include <algorithm>
#include <utility>

#include "tickwire/engine/ingest/order_feed.hpp"
#include "tickwire/engine/ingest/price_feed.hpp"

namespace tickwire::engine {

namespace {

constexpr std::int64_t kReplayParkNs = 200'000;  // A ring without room says nothing when it has some.
constexpr std::int64_t kCloseParkNs = 1'000'000;

}  // namespace

IngestAgent::IngestAgent(Setup setup, metrics::StatFile& stats, Arena& arena)
    : name_(std::move(setup.name)),
      heartbeat_(setup.heartbeat),
      stages_(stats, name_),
      errors_(stats.error_log(name_)),
      outlet_({.scope = name_,
               .replay = setup.replay,
               .max_age_ns = setup.replay ? 0 : setup.config.features.max_age_ns,
               .layout = setup.layout,
               .clock = utc_,
               .stages = stages_,
               .errors = errors_},
              stats, arena) {
  if (setup.replay) replay_.emplace(outlet_);
  const bool any_price = std::any_of(setup.feeds.begin(), setup.feeds.end(),
                                     [](const FeedConfig& feed) { return !feed.itch.has_value(); });
  if (!setup.replay && any_price) desk_.emplace(setup.control, waker_, utc_, errors_, arena);
  std::uint32_t number = setup.first_feed;
  InstrumentId first = setup.first_instrument;
  std::size_t fds = 0;
  for (const FeedConfig& config : setup.feeds) {
    add({.outlet = outlet_,
         .desk = desk(),
         .engine = setup.config,
         .config = config,
         .number = number++,
         .first_instrument = first,
         .recorder = setup.recorder,
         .clock = utc_,
         .stages = stages_,
         .errors = errors_},
        stats, arena);
    fds += feeds_.back()->sources();
    first += static_cast<InstrumentId>(config.instruments.size());
  }
  if (setup.recorder != nullptr)
    outlet_.record_to(setup.recorder->add_rows(name_, setup.layout.record_bytes(), arena));
  park_fds_.reserve(fds);
}

IngestAgent::~IngestAgent() = default;

void IngestAgent::add(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena) {
  if (setup.config.itch) {
    feeds_.push_back(std::make_unique<OrderFeed>(setup, stats, arena));
  } else {
    auto feed = std::make_unique<PriceFeed>(setup, stats, arena);
    if (!replay_ && !setup.config.warm.empty()) {
      warm_starts_.push_back(std::make_unique<WarmStart>(*feed, *desk_, setup.engine.features, utc_, arena));
    }
    feeds_.push_back(std::move(feed));
  }
  if (replay_) replay_->add(*feeds_.back());
}

void IngestAgent::on_start() {
  outlet_.warm_up();
  if (replay_) return replay_->start();
  for (auto& warm : warm_starts_) warm->start();
  for (auto& feed : feeds_) feed->start();
}

int IngestAgent::do_work() noexcept {
  outlet_.flush();
  if (replay_) {
    const int work = replay_->turn();
    if (replay_->at_end() && !finished_.load()) [[unlikely]] {
      TICKWIRE_HOT_EXEMPT_BEGIN("a replay's end, once")
      every_100ms();
      TICKWIRE_HOT_EXEMPT_END
      finished_.publish(true);
    }
    return work;
  }
  int work = take_snapshots();
  for (auto& warm : warm_starts_) {
    if (warm->is_over()) [[likely]]
      continue;
    TICKWIRE_HOT_EXEMPT_BEGIN("a warm start: files are read before the feed's first row")
    work += warm->turn();
    TICKWIRE_HOT_EXEMPT_END
  }
  for (auto& feed : feeds_) work += feed->poll();
  if (work == 0) outlet_.keep_warm();
  return work;
}

int IngestAgent::take_snapshots() noexcept {
  if (!desk_) return 0;
  return desk_->take([this](InstrumentId instrument, std::span<const char> body, std::uint32_t limit) noexcept
                     TICKWIRE_HOT {
                       for (auto& feed : feeds_) {
                         if (feed->has(instrument)) return feed->snapshot_came(instrument, body, limit);
                       }
                     });
}

void IngestAgent::on_close() {
  if (replay_) return;
  outlet_.stop();
  for (auto& feed : feeds_) feed->stop();
  for (bool open = true; open;) {
    open = false;
    for (auto& feed : feeds_) {
      (void)feed->poll();
      open = open || !feed->stopped();
    }
    if (open) Agent::park(kCloseParkNs);
  }
  for (auto& feed : feeds_) feed->tell_all_missing();
  every_100ms();
}

void IngestAgent::park(std::int64_t max_ns) noexcept {
  if (replay_) return Agent::park(std::min(max_ns, kReplayParkNs));
  park_fds_.clear();
  std::int64_t limit_ns = max_ns;
  for (const auto& warm : warm_starts_) limit_ns = std::min(limit_ns, warm->wait_for());
  for (const auto& feed : feeds_) limit_ns = std::min(limit_ns, feed->wait_for(park_fds_));
  const auto has_work = [this] { return desk_ && desk_->has_answer(); };
  if (waker_.prepare_sleep(has_work)) waker_.wait(limit_ns, park_fds_);
}

void IngestAgent::every_100ms() noexcept {
  utc_.resync();
  const TsNs now = utc_.now();
  if (heartbeat_ != nullptr) heartbeat_->heartbeat(now);
  if (desk_) desk_->check();
  for (auto& feed : feeds_) {
    if (!replay_) feed->watch(now);
    feed->count(now);
  }
  if (replay_) replay_->count();
}

// ---------------------------------------------------------------------------------------------------
// For the control plane

std::vector<std::string> IngestAgent::socket_report() const {
  std::vector<std::string> lines;
  for (const auto& feed : feeds_) {
    for (std::string& line : feed->socket_report()) lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::string> IngestAgent::warm_report() const {
  std::vector<std::string> lines;
  for (const auto& warm : warm_starts_) {
    for (std::string& line : warm->report()) lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<CaptureFacts> IngestAgent::capture_facts() const {
  return replay_ && finished_.observe() ? replay_->facts() : std::vector<CaptureFacts>();
}

}  // namespace tickwire::engine
