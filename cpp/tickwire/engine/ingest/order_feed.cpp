#include "tickwire/engine/ingest/order_feed.hpp"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/core/text.hpp"
#include "tickwire/engine/error_kinds.hpp"

namespace tickwire::engine {

namespace {

using venue::itch::Outcome;
using Note = md::StreamNote::Kind;

// Of a capture whose lines the configuration does not name: those that have counters.
constexpr std::size_t kUsualLines = 2;

md::InstrumentTable table_of(const FeedConfig& config) {
  md::InstrumentTable table;
  for (const InstrumentConfig& instrument : config.instruments) {
    table.add({instrument.symbol, config.name, instrument.price_decimals, instrument.qty_decimals});
  }
  return table;
}

/// The day that the configuration names for everything there is.
std::optional<TsNs> day_of(const std::vector<TsNs>& midnights) {
  if (midnights.empty() || midnights.front() == 0) return std::nullopt;
  const bool one = std::all_of(midnights.begin(), midnights.end(),
                               [&](TsNs midnight) { return midnight == midnights.front(); });
  return one ? std::optional(midnights.front()) : std::nullopt;
}

std::string key_of(std::uint32_t feed) { return "feeds[" + std::to_string(feed) + "]"; }

/// As the capture names them. A line's sender is not asked for.
std::vector<StreamLine> stream_lines(const net::MoldFeedConfig& config) {
  std::vector<StreamLine> lines;
  for (const net::UdpConfig& line : config.lines) {
    StreamLine one;
    (void)md::parse_pcap_endpoint(line.address, line.port, one.destination);
    const bool is_v6 = line.address.find(':') != std::string::npos;
    (void)md::parse_pcap_endpoint(is_v6 ? "::" : "0.0.0.0", 0, one.source);
    lines.push_back(one);
  }
  // What was asked for again stands as the first line's: the server's address is of no use to a reader.
  lines.push_back(lines.front());
  return lines;
}

/// Two heartbeats of MoldUDP64.
constexpr std::int64_t kTwoHeartbeatsNs = 2'000'000'000;
/// A capture must end somewhere: silence in it proves that a session is over, also where live it would not.
constexpr std::int64_t kReplaySilenceNs = 5'000'000'000;

/// What lets another session, or numbers far beyond, be believed.
void set_proofs(net::SequencerConfig& sequencer, std::int64_t liveness_timeout_ns) {
  sequencer.silence_ns = liveness_timeout_ns;
  sequencer.end_silence_ns =
      liveness_timeout_ns > 0 ? std::min(kTwoHeartbeatsNs, liveness_timeout_ns) : kTwoHeartbeatsNs;
}

void set(metrics::Counter& counter, std::uint64_t value) noexcept {
  counter.set(static_cast<std::int64_t>(value));
}

}  // namespace

OrderLane::OrderLane(InstrumentId id_, const FeedConfig& feed, const InstrumentConfig& instrument,
                     const venue::itch::Market& market, InstrumentId local, const FeaturesConfig& features,
                     metrics::StatFile& stats, Arena& arena)
    : id(id_),
      pipeline(market, local, instrument.qty_decimals, features, arena),
      counters{{stats, feed.name + "/" + instrument.symbol}} {}

OrderFeed::OrderFeed(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena)
    : outlet_(setup.outlet),
      config_(setup.config),
      first_instrument_(setup.first_instrument),
      table_(table_of(config_)),
      clock_(setup.clock),
      stages_(setup.stages),
      errors_(setup.errors),
      market_(table_, config_.itch->max_orders, arena),
      day_(day_of(config_.itch->midnights)),
      windows_on_recv_(setup.engine.features.clock == WindowClock::Recv),
      counters_{{stats, config_.name}} {
  for (InstrumentId local = 0; local < config_.instruments.size(); ++local) {
    lanes_.push_back(std::make_unique<OrderLane>(setup.first_instrument + local, config_,
                                                 config_.instruments[local], market_, local,
                                                 setup.engine.features, stats, arena));
  }
  if (!setup.engine.replay) {
    connect(setup, stats, arena);
    return;
  }
  venue::itch::ReplayConfig replay{.files = config_.inputs,
                                   .midnights = config_.itch->midnights,
                                   .mold = config_.itch->multicast.value_or(net::MoldFeedConfig{})};
  set_proofs(replay.mold.sequencer,
             config_.liveness_timeout_ns > 0 ? config_.liveness_timeout_ns : kReplaySilenceNs);
  files_ = std::make_unique<venue::itch::ReplaySource>(replay, key_of(setup.number), arena);
  if (files_->sequencer() == nullptr) return;
  for (std::size_t i = 0; i < (files_->lines() != 0 ? files_->lines() : kUsualLines); ++i) {
    lines_.push_back({{stats, config_.name + "/line" + std::to_string(i)}});
  }
}

void OrderFeed::connect(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena) {
  if (!config_.itch->multicast) {
    throw SetupError(key_of(setup.number) + ".multicast", "the lines of a live feed", "none");
  }
  net::MoldFeedConfig mold = *config_.itch->multicast;
  using Start = net::SequencerConfig::Start;
  mold.sequencer.start = mold.glimpse.server.empty() ? Start::Beginning : Start::Snapshot;
  set_proofs(mold.sequencer, config_.liveness_timeout_ns);
  // The first session is whichever is heard first, but where there is somebody to ask.
  if (!mold.rerequest.peer.empty() || (!mold.glimpse.server.empty() && !mold.any_glimpse_session)) {
    mold.sequencer.first_proof_ns = mold.sequencer.end_silence_ns;
  }
  if (setup.recorder != nullptr) {
    tap_ = &setup.recorder->add_stream(config_.name, stream_lines(mold), arena);
  }
  const std::size_t lines = mold.lines.size();
  mold_.emplace(static_cast<net::MoldFeedHandler&>(*this), std::move(mold),
                key_of(setup.number) + ".multicast", arena);
  for (std::size_t i = 0; i < lines; ++i) {
    lines_.push_back({{stats, config_.name + "/line" + std::to_string(i)}});
  }
  lines_.push_back({{stats, config_.name + "/rerequest"}});
  started_tsc_ = tsc_now();
}

// ---------------------------------------------------------------------------------------------------
// Live

void OrderFeed::note(TsNs ts, const md::StreamNote& note) noexcept {
  if (tap_ == nullptr) return;
  TICKWIRE_HOT_EXEMPT_BEGIN("rare: a number is written as text")
  tap_->note(ts, note);
  TICKWIRE_HOT_EXEMPT_END
}

void OrderFeed::on_run(const net::Run& run) noexcept {
  // What a server answers, or was kept, is no sign of life.
  if (closed_ && any_heard()) [[unlikely]] {
    const TsNs now = clock_.now();
    note(now, {Note::Open});
    open(now);
  }
  constexpr std::size_t kAhead = venue::itch::Market::kAhead;
  const std::span<const net::MessageView> all = run.messages;
  const bool is_long = all.size() > kAhead;  // Else nothing is known early enough for the pipelines.
  OrderLookahead lookahead;
  const auto pipeline_of = [this](InstrumentId local) noexcept
      TICKWIRE_HOT -> OrderPipeline& { return lanes_[local]->pipeline; };
  const auto expect = [&](const net::MessageView& one) noexcept TICKWIRE_HOT {
    const InstrumentId local = market_.prepare(std::as_bytes(one));
    if (is_long) lookahead.expect(local, pipeline_of);
  };
  for (const net::MessageView& one : all.first(std::min(kAhead, all.size()))) expect(one);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i + kAhead < all.size()) expect(all[i + kAhead]);
    message(run.sequence + i, std::as_bytes(all[i]),
            {tsc_now(), 0, run.arrival.ts_recv, run.arrival.recv_clock});
  }
  // After the signals are out, so that recording costs them nothing.
  if (tap_ != nullptr) tap_->run(session_, run);
}

void OrderFeed::on_session(const net::SessionId& session) noexcept {
  session_ = session;
  const TsNs now = clock_.now();
  note(now, {Note::Session});
  begin_session(now);
}

void OrderFeed::on_lost(std::uint64_t first, std::uint64_t count) noexcept {
  const TsNs now = clock_.now();
  note(now, {Note::Lost, first, count});
  lose(first, count, now);
}

void OrderFeed::on_snapshot_begin() noexcept {
  const TsNs now = clock_.now();
  note(now, {Note::Snapshot});
  begin_snapshot(now);
}

void OrderFeed::on_snapshot_message(net::MessageView message) noexcept {
  const TsNs now = clock_.now();
  if (tap_ != nullptr) tap_->snapshot_message(now, message);
  snapshot_message(std::as_bytes(message), now);
}

void OrderFeed::on_snapshot_end(std::uint64_t next) noexcept {
  const TsNs now = clock_.now();
  note(now, {Note::SnapshotEnd, next});
  end_snapshot(now);
}

void OrderFeed::on_snapshot_failed(std::string_view reason) noexcept {
  const TsNs now = clock_.now();
  report(errors_, ErrorKind::SnapshotFailed, {config_.name, ": ", reason}, now);
  if (!in_snapshot_) return;
  note(now, {Note::SnapshotFailed});
  fail_snapshot(now);
}

bool OrderFeed::is_silent(std::size_t line) const noexcept {
  // Of the stream: what a stranger sends to the group is no sign of life.
  const std::int64_t heard = std::max(tsc_to_ns(std::max(started_tsc_, mold_->heard_tsc(line))),
                                      mold_->sequencer().heard_at(static_cast<std::uint32_t>(line)));
  return tsc_to_ns(tsc_now()) - heard > config_.liveness_timeout_ns;
}

bool OrderFeed::any_heard() const noexcept {
  for (std::size_t i = 0; i < mold_->lines(); ++i) {
    if (!is_silent(i)) return true;
  }
  return false;
}

void OrderFeed::watch(TsNs) noexcept {
  if (stopped_ || config_.liveness_timeout_ns == 0) return;
  for (std::size_t i = 0; i < mold_->lines(); ++i) {
    // We may have been the ones who slept: look at the sockets before the venue is blamed.
    if (!lines_[i].silent && is_silent(i)) (void)poll();
    const bool silent = is_silent(i);
    if (silent && !lines_[i].silent) {
      counters_.lines_silent.add(1);
      report(errors_, ErrorKind::ConnectionSilent,
             {config_.name, ": line ", NumberText(i).view(), " at ", mold_->line(i).config().address},
             clock_.now());
    }
    lines_[i].silent = silent;
  }
  if (any_heard() != closed_) return;
  const TsNs now = clock_.now();
  note(now, {closed_ ? Note::Open : Note::Close});
  closed_ ? open(now) : close(now);
}

void OrderFeed::stop() noexcept {
  stopped_ = true;
  on_every_lane(clock_.now(),
                [](OrderPipeline& pipeline) { return pipeline.block(md::InvalidReason::Stopped); });
}

std::vector<std::string> OrderFeed::socket_report() const {
  return mold_ ? mold_->report() : std::vector<std::string>();
}

// ---------------------------------------------------------------------------------------------------
// Replay

/// The feed's files, whose newest entry is the feed's.
class OrderFeed::Input final : public ReplayInput {
 public:
  explicit Input(OrderFeed& feed) : feed_(feed) {}

  void read() noexcept override {
    try {
      at_end_ = !feed_.files_->next(feed_.item_);
    } catch (const std::bad_alloc&) {
      at_end_ = no_memory_ = true;
    }
  }
  [[nodiscard]] bool at_end() const noexcept TICKWIRE_HOT override { return at_end_; }
  [[nodiscard]] TsNs ts() const noexcept TICKWIRE_HOT override { return feed_.item_.ts_recv; }
  void process() noexcept TICKWIRE_HOT override { venue::itch::play(feed_.item_, feed_); }
  void tell(CaptureFacts& facts) const override { feed_.tell(facts); }
  void end() noexcept override {
    if (!feed_.files_->truncated() && !no_memory_) return;
    feed_.counters_.truncated.set(1);
    report(feed_.errors_, ErrorKind::CaptureTruncated,
           no_memory_ ? std::string_view("out of memory") : feed_.files_->error(), 0);
  }

 private:
  OrderFeed& feed_;
  bool at_end_ = false;
  bool no_memory_ = false;
};

std::unique_ptr<ReplayInput> OrderFeed::open_input() { return std::make_unique<Input>(*this); }

void OrderFeed::tell(CaptureFacts& facts) const {
  facts.feed = config_.name;
  witness_.tell(facts);
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    const OrderLane& lane = *lanes_[i];
    const std::string& symbol = config_.instruments[i].symbol;
    if (lane.pipeline.epoch() == 0) {
      if (lane.pipeline.state() == md::BookState::Empty) facts.without_changes.push_back(symbol);
      continue;
    }
    if (!lane.traded) facts.without_trades.push_back(symbol);
    // A market that is closed ends its day with every stock halted: that is in order.
    if (lane.pipeline.state() == md::BookState::Suspect) {
      facts.lost.push_back({symbol, std::string(md::name_of(md::BookState::Suspect)),
                            std::string(md::name_of(lane.lost_reason)), place_of(lane), lane.lost_ts});
    } else if (lane.counters.rows.value() == 0) {
      const auto last = lane.pipeline.warm_last();
      const TsNs now = lane.pipeline.clock();
      if (last.warm_at <= now) continue;
      const bool known = last.warm_at != std::numeric_limits<TsNs>::max();
      facts.not_warm.push_back({symbol, last.feature, known ? last.warm_at - now : -1});
    }
  }
}

void OrderFeed::note_lost(OrderLane& lane, md::InvalidReason reason, TsNs ts) const noexcept {
  lane.lost_reason = reason;
  lane.lost_ts = ts;
  if (files_ == nullptr) return;
  lane.lost_file = &files_->file();
  lane.lost_message = item_.sequence;
}

/// Where it was lost, as FILE: message N. Messages count in a day file, and in a capture in their session.
std::string OrderFeed::place_of(const OrderLane& lane) {
  if (lane.lost_file == nullptr || lane.lost_message == 0) return {};
  return *lane.lost_file + ": message " + std::to_string(lane.lost_message);
}

// ---------------------------------------------------------------------------------------------------
// What happens

void OrderFeed::message(std::uint64_t sequence, std::span<const std::byte> bytes, Arrival arrival) noexcept {
  counters_.messages.add(1);
  counters_.bytes.add(static_cast<std::int64_t>(bytes.size()));
  if (clock_doubted_ && stamps_.is_near(arrival.ts_recv)) [[unlikely]] {
    // The message before this one leapt, and this one is of the same time.
    clock_doubted_ = false;
    on_every_lane(arrival.ts_recv, [](OrderPipeline& pipeline) { return pipeline.trust_clock(); });
  }
  const venue::itch::Update update = market_.on_message(bytes);
  const bool read = update.outcome == Outcome::Message;
  if (!read) [[unlikely]]
    refused(update.outcome, arrival.ts_recv);
  if (update.misfit != venue::itch::Misfit::None) [[unlikely]]
    misfit(update, sequence, arrival.ts_recv);
  if (update.instrument == kNoInstrument && !update.all) {
    if (files_ != nullptr) witness(bytes);
    return;
  }

  arrival.tsc_decoded = tsc_now();
  const TsNs ts_event = read ? day_.at(update.ts_ns, arrival.ts_recv) : kNoTime;
  // The time of day, as the venue says it: which day it is follows from the receive stamp. Every message has
  // one, so nobody need have been there to measure a silence.
  const StampWatch::Leaps leaps = stamps_.follow(arrival.ts_recv, read ? update.ts_ns : kNoTime, 0);
  if (leaps.recv || (leaps.event && !windows_on_recv_)) [[unlikely]]
    doubt_clock(leaps, arrival.ts_recv);
  if (update.all) [[unlikely]] {
    return on_every_lane(ts_event, arrival, [&](OrderPipeline& pipeline) {
      return pipeline.on_update(update, ts_event, arrival.ts_recv, sequence);
    });
  }
  stages_.record(signal::Stage::Decode, tsc_span_ns(arrival.tsc_start, arrival.tsc_decoded));
  if (update.book) counters_.book_events.add(1);
  if (update.traded) counters_.trades.add(1);
  OrderLane& lane = *lanes_[update.instrument];
  lane.traded = lane.traded || update.traded;
  const Step step = lane.pipeline.on_update(update, ts_event, arrival.ts_recv, sequence);
  stages_.record(signal::Stage::Book, tsc_span_ns(arrival.tsc_decoded, step.tsc_book));
  finish(lane, step, ts_event, arrival);
  if (update.other != kNoInstrument) [[unlikely]] {
    OrderLane& second = *lanes_[update.other];
    finish(second, second.pipeline.on_state(), ts_event, arrival);
  }
}

/// A replay's message of none of ours: which stocks there are is told to who misses one.
void OrderFeed::witness(std::span<const std::byte> bytes) noexcept {
  constexpr std::size_t kStockAt = 11;
  constexpr std::size_t kStockBytes = 8;
  if (bytes.size() < kStockAt + kStockBytes || bytes[0] != std::byte{'R'}) [[likely]]
    return;
  TICKWIRE_HOT_EXEMPT_BEGIN("a replay, and once a stock")
  const std::string_view stock(reinterpret_cast<const char*>(bytes.data()) + kStockAt, kStockBytes);
  witness_.other(stock.substr(0, stock.find_last_not_of(' ') + 1));
  TICKWIRE_HOT_EXEMPT_END
}

/// A book that was right is not any more. A snapshot's messages have no number: 0.
void OrderFeed::misfit(const venue::itch::Update& update, std::uint64_t sequence, TsNs ts) noexcept {
  using venue::itch::Misfit;
  TICKWIRE_HOT_EXEMPT_BEGIN("rare: texts are put together, and a snapshot is asked for")
  std::string_view what;
  switch (update.misfit) {
    case Misfit::None: return;
    case Misfit::Malformed: what = "cannot be read"; break;
    case Misfit::UnknownOrder: what = "is about an order that is not there"; break;
    case Misfit::DuplicateOrder: what = "adds an order that is there"; break;
    case Misfit::OtherBook: what = "is about an order of another stock than its locate's"; break;
    case Misfit::BadQty: what = "has a quantity that its order has not"; break;
    case Misfit::NoMemory: what = "adds an order that finds no memory: raise feeds[].max_orders"; break;
    case Misfit::OtherStock: what = "names another stock than its locate's"; break;
    case Misfit::LocateMoved: what = "gives a stock's locate away in the middle of a day"; break;
    case Misfit::UnnamedLocate: what = "is of a locate that its stock was not named for"; break;
  }
  const auto symbol_of = [&](InstrumentId local) -> std::string_view {
    return local == kNoInstrument ? std::string_view() : std::string_view(config_.instruments[local].symbol);
  };
  // What no snapshot mends is not asked for one.
  const bool asks = mold_ && mold_->has_snapshots() && update.misfit != Misfit::NoMemory;
  if (asks) mold_->ask_snapshot();
  report(errors_, ErrorKind::OrderMisfit,
         {config_.name, sequence != 0 ? ": message " : ": a snapshot's message",
          sequence != 0 ? NumberText(sequence).view() : "", ' ' + std::string(what), "; suspect until ",
          asks ? "a snapshot, which is asked for" : "the next session or start of day", ": ",
          update.all ? "all" : symbol_of(update.instrument), update.other == kNoInstrument ? "" : ", ",
          symbol_of(update.other)},
         ts);
  TICKWIRE_HOT_EXEMPT_END
}

/// Whether this message's stamp is wrong, or those before it were, is not known: no book is valid before the
/// next one, and windows begin anew.
void OrderFeed::doubt_clock(const StampWatch::Leaps& leaps, TsNs ts) noexcept {
  clock_doubted_ = true;
  counters_.clock_leaps.add(1);
  if (leaps.recv) stamps_.tell_recv(errors_, config_.name, ts);
  if (leaps.event && !windows_on_recv_) stamps_.tell_event(errors_, config_.name, ts);
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.doubt_clock(); });
}

void OrderFeed::refused(Outcome outcome, TsNs ts) noexcept {
  if (outcome == Outcome::Empty || outcome == Outcome::UnknownType) return;
  report(errors_, ErrorKind::MessageMalformed,
         {config_.name, ": a message of another length than its type has, or with a field that cannot be"},
         ts);
}

void OrderFeed::begin_session(TsNs ts) noexcept {
  in_snapshot_ = false;
  stamps_.forget();
  TICKWIRE_HOT_EXEMPT_BEGIN("once a session: forgets all orders")
  market_.reset();
  TICKWIRE_HOT_EXEMPT_END
  // A line has brought it.
  closed_ = false;
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.begin_anew(); });
}

void OrderFeed::lose(std::uint64_t first, std::uint64_t count, TsNs ts) noexcept {
  market_.lose();
  counters_.lost_messages.add(static_cast<std::int64_t>(count));
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.on_state(); });
  TICKWIRE_HOT_EXEMPT_BEGIN("rare: numbers are written as text")
  constexpr std::string_view kWhy = " came on no line and could not be had again";
  if (count == 1) {
    report(errors_, ErrorKind::MessagesLost, {config_.name, ": message ", NumberText(first).view(), kWhy},
           ts);
  } else {
    report(errors_, ErrorKind::MessagesLost,
           {config_.name, ": messages ", NumberText(first).view(), " to ",
            NumberText(first + count - 1).view(), kWhy},
           ts);
  }
  TICKWIRE_HOT_EXEMPT_END
}

void OrderFeed::begin_snapshot(TsNs ts) noexcept {
  in_snapshot_ = true;
  market_.rebuild();
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.on_state(); });
}

void OrderFeed::snapshot_message(std::span<const std::byte> bytes, TsNs ts) noexcept {
  const venue::itch::Update update = market_.on_message(bytes);
  if (update.outcome != Outcome::Message) refused(update.outcome, ts);
  if (update.misfit != venue::itch::Misfit::None) misfit(update, 0, ts);
}

void OrderFeed::end_snapshot(TsNs ts) noexcept {
  in_snapshot_ = false;
  market_.rebuilt();
  counters_.snapshots.add(1);
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.on_state(); });
}

void OrderFeed::fail_snapshot(TsNs ts) noexcept {
  in_snapshot_ = false;
  market_.rebuild();
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.on_state(); });
}

void OrderFeed::close(TsNs ts) noexcept {
  closed_ = true;
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.block(md::InvalidReason::Disconnected); });
}

void OrderFeed::open(TsNs ts) noexcept {
  closed_ = false;
  // For how long nothing was heard is no leap.
  stamps_.forget();
  on_every_lane(ts, [](OrderPipeline& pipeline) { return pipeline.unblock(); });
}

template <typename Change>
void OrderFeed::on_every_lane(TsNs ts_event, const Arrival& arrival, Change change) noexcept {
  for (auto& lane : lanes_) finish(*lane, change(lane->pipeline), ts_event, arrival);
}

/// By no message: at `ts`, of our own clock or as it was recorded.
template <typename Change>
void OrderFeed::on_every_lane(TsNs ts, Change change) noexcept {
  on_every_lane(kNoTime, {tsc_now(), tsc_now(), ts, RecvClock::Read}, change);
}

void OrderFeed::finish(OrderLane& lane, const Step& step, TsNs ts_event, const Arrival& arrival) noexcept {
  const OrderPipeline& pipeline = lane.pipeline;
  // No trade is missing here: what is lost takes every book's validity.
  RowOutlet::Of of{.instrument = lane.id,
                   .epoch = pipeline.epoch(),
                   .row = 0,
                   .sequence = pipeline.sequence(),
                   .ts_event = ts_event,
                   .missing_trades = 0};
  if (step.row) {
    of.row = pipeline.row();
    lane.counters.rows.add(1);
    outlet_.row(of, pipeline.history(), step, arrival);
    of.row = 0;
  }
  if (step.left_valid) [[unlikely]] {
    if (step.reason == md::InvalidReason::Gap) counters_.gaps.add(1);
    counters_.left_valid.add(1);
    lane.counters.left_valid.add(1);
    lane.counters.reason.set(static_cast<std::int64_t>(step.reason));
    note_lost(lane, step.reason, arrival.ts_recv);
    outlet_.notice(of, pipeline.state(), step.reason, arrival);
  }
  if (step.became_valid) [[unlikely]]
    counters_.became_valid.add(1);
}

// ---------------------------------------------------------------------------------------------------
// Counters

void OrderFeed::count(TsNs now) noexcept {
  for (auto& lane : lanes_) {
    lane->counters.follow(lane->pipeline.state(), lane->pipeline.epoch(), now);
    set(lane->counters.window_overflows, lane->pipeline.window_overflows());
  }
  counters_.input_ts.set(item_.ts_recv);
  const venue::itch::MarketCounts& counts = market_.counts();
  set(counters_.others, counts.others);
  set(counters_.unknown_type, market_.decoder().unknown());
  set(counters_.malformed, market_.decoder().refused());
  set(counters_.unknown_order, counts.unknown_order);
  set(counters_.duplicate_order, counts.duplicate_order);
  set(counters_.other_book, counts.other_book);
  set(counters_.bad_qty, counts.bad_qty);
  set(counters_.other_stock, counts.other_stock);
  set(counters_.locate_moved, counts.locate_moved);
  set(counters_.unnamed_locate, counts.unnamed_locate);
  set(counters_.orders_full, counts.orders_full);
  set(counters_.levels_full, counts.levels_full);
  set(counters_.crossed, counts.crossed);
  set(counters_.orders, market_.books().orders());

  const net::Sequencer* const sequencer = mold_ ? &mold_->sequencer() : files_->sequencer();
  if (sequencer != nullptr) {
    const net::SequencerStats& stats = sequencer->stats();
    set(counters_.sequence_gaps, stats.gaps);
    set(counters_.requests, stats.requests);
    set(counters_.request_timeouts, stats.request_timeouts);
    set(counters_.requested_messages, stats.requested);
    set(counters_.snapshots_too_old, stats.snapshots_too_old);
    set(counters_.sessions, stats.sessions);
    set(counters_.other_session, stats.other_session);
    set(counters_.window_full, stats.window_full);
    set(counters_.implausible_datagrams, stats.implausible);
    report_refused(*sequencer);
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      count_line(i, sequencer->line_stats(static_cast<std::uint32_t>(i)));
    }
  }
  if (!mold_) {
    const venue::itch::ReplayStats stats = files_->stats();
    set(counters_.malformed_datagrams, stats.malformed);
    set(counters_.other_groups, stats.other_groups);
    set(counters_.other_session,
        (sequencer != nullptr ? sequencer->stats().other_session : 0) + stats.strays);
    set(counters_.packets_cut, stats.cut);
    return;
  }
  set(counters_.malformed_datagrams, mold_->stats().malformed);
  set(counters_.snapshots_failed, mold_->stats().snapshot_failures);
  std::uint64_t capped = 0;
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    const net::UdpSource* const source = i < mold_->lines() ? &mold_->line(i) : mold_->rerequest();
    if (source == nullptr) continue;
    const net::UdpStats& stats = source->stats();
    set(lines_[i].socket_drops, stats.socket_drops);
    set(lines_[i].cut, stats.cut);
    capped += stats.stamps_capped;
    set(lines_[i].receive_errors, stats.errors + stats.send_failures);
    if (std::exchange(lines_[i].errors_seen, stats.errors + stats.send_failures) !=
        stats.errors + stats.send_failures) {
      report(errors_, ErrorKind::ReceiveFailed, {config_.name, ": ", source->last_error()}, clock_.now());
    }
  }
  set(counters_.stamps_capped, capped);
}

/// What is not believed is told for as long as it comes.
void OrderFeed::report_refused(const net::Sequencer& sequencer) noexcept {
  const net::SequencerStats& stats = sequencer.stats();
  const auto name_of = [](const net::SessionId& session) {
    const std::string_view text(session.data(), session.size());
    const std::size_t begin = std::min(text.find_first_not_of(' '), text.size());
    return text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
  };
  // In a replay at the time of nothing in particular, as its files' errors are.
  const TsNs ts = mold_ ? clock_.now() : 0;
  const std::string_view how = mold_ ? " (multicast.source_address keeps strangers away)" : "";
  const bool has_session = sequencer.state() != net::Sequencer::State::Empty;
  const bool is_other = !has_session || sequencer.refused_session() != sequencer.session();
  if (std::exchange(sessions_refused_, stats.other_session) < stats.other_session && is_other) {
    report(errors_, ErrorKind::SessionRefused,
           {config_.name, ": session \"", name_of(sequencer.refused_session()),
            has_session ? "\" is not believed, because \"" : "\" is not believed yet: a server is asked",
            has_session ? name_of(sequencer.session()) : "", has_session ? "\" goes on" : "", how},
           ts);
  }
  if (std::exchange(numbers_refused_, stats.implausible) < stats.implausible) {
    report(errors_, ErrorKind::NumberRefused,
           {config_.name, ": message ", NumberText(sequencer.refused_number()).view(),
            " is not believed, because the stream is at ", NumberText(sequencer.expected()).view(), how},
           ts);
  }
}

void OrderFeed::count_line(std::size_t number, const net::LineStats& line) noexcept {
  LineCounters& counters = lines_[number];
  set(counters.datagrams, line.packets);
  set(counters.received, line.received);
  set(counters.won, line.won);
  set(counters.duplicate, line.duplicate);
  set(counters.late, line.late);
  set(counters.gap, line.gap);
  set(counters.overtaken, line.overtaken);
  set(counters.heartbeats, line.heartbeats);
}

}  // namespace tickwire::engine
