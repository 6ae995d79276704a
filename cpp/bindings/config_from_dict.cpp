#include "config_from_dict.hpp"

#include <pybind11/stl.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/features/plan.hpp"
#include "tickwire/venue/venues.hpp"

namespace tickwire::bindings {

namespace py = pybind11;

namespace {

/// A dict and where it stands in the whole, for messages.
class Section {
 public:
  Section(py::dict dict, std::string where) : dict_(std::move(dict)), where_(std::move(where)) {}

  template <typename T>
  [[nodiscard]] T get(const char* key) const {
    try {
      return object(key).template cast<T>();
    } catch (const py::cast_error&) {
      throw SetupError(path(key), py::type_id<T>(), py::repr(object(key)).template cast<std::string>());
    }
  }

  /// The enumerator whose name the key holds.
  template <typename E>
  [[nodiscard]] E choose(const char* key,
                         std::initializer_list<std::pair<std::string_view, E>> choices) const {
    const auto name = get<std::string>(key);
    std::string expected;
    for (const auto& [text, value] : choices) {
      if (text == name) return value;
      expected += (expected.empty() ? "" : ", ") + std::string(text);
    }
    throw SetupError(path(key), "one of " + expected, name);
  }

  /// Is there something other than None?
  [[nodiscard]] bool has(const char* key) const { return dict_.contains(key) && !dict_[key].is_none(); }

  [[nodiscard]] Section section(const char* key) const { return {get<py::dict>(key), path(key)}; }

  [[nodiscard]] std::vector<Section> sections(const char* key) const {
    std::vector<Section> all;
    for (const py::handle item : get<py::list>(key)) {
      all.emplace_back(item.cast<py::dict>(), path(key) + "[" + std::to_string(all.size()) + "]");
    }
    return all;
  }

  [[nodiscard]] std::string path(const char* key) const { return where_.empty() ? key : where_ + "." + key; }

 private:
  [[nodiscard]] py::object object(const char* key) const {
    if (!dict_.contains(key)) throw SetupError(path(key), "a value", "no such key");
    return dict_[key];
  }

  py::dict dict_;
  std::string where_;
};

/// A socket of a multicast feed, but for where it listens.
net::UdpConfig socket_from(const Section& s) {
  net::UdpConfig socket;
  socket.batch = s.get<std::uint32_t>("batch");
  socket.max_datagram_bytes = s.get<std::size_t>("max_datagram_bytes");
  socket.socket_receive_bytes = s.get<int>("receive_buffer_bytes");
  socket.busy_poll_us = s.get<int>("busy_poll_us");
  socket.busy_poll_budget = s.get<int>("busy_poll_budget");
  socket.prefer_busy_poll = s.get<bool>("prefer_busy_poll");
  socket.nic_stamps = s.get<bool>("nic_stamps");
  return socket;
}

net::MoldFeedConfig multicast_from(const Section& s) {
  // What the protocol wants of a client between two packets of its own.
  constexpr std::int64_t kSoupHeartbeatNs = 1'000'000'000;
  const auto timeout_ns = s.get<std::int64_t>("glimpse_timeout_ns");
  net::MoldFeedConfig mold{
      .lines = {},
      .rerequest = socket_from(s),
      .glimpse = {.server = s.get<std::string>("glimpse"),
                  .username = s.get<std::string>("username"),
                  .password = s.get<std::string>("password"),
                  .login_timeout_ns = timeout_ns,
                  .heartbeat_ns = kSoupHeartbeatNs,
                  .silence_timeout_ns = timeout_ns},
      .any_glimpse_session = s.choose<bool>("glimpse_session", {{"same", false}, {"any", true}}),
      .snapshot_retry_ns = s.get<std::int64_t>("glimpse_retry_ns"),
      .sequencer = {.window_packets = s.get<std::size_t>("window_datagrams"),
                    .reorder_ns = s.get<std::int64_t>("reorder_window_ns"),
                    .request_attempts = s.get<std::uint32_t>("request_attempts"),
                    .request_timeout_ns = s.get<std::int64_t>("request_timeout_ns"),
                    .request_interval_ns = s.get<std::int64_t>("request_interval_ns"),
                    .request_messages = s.get<std::uint32_t>("request_messages")}};
  mold.rerequest.peer = s.get<std::string>("rerequest");
  for (const Section& line : s.sections("lines")) {
    net::UdpConfig socket = socket_from(s);
    socket.address = line.get<std::string>("address");
    socket.port = line.get<std::uint16_t>("port");
    socket.interface = line.get<std::string>("interface");
    socket.source_address = line.get<std::string>("source_address");
    mold.lines.push_back(std::move(socket));
  }
  return mold;
}

const venue::Venue& venue_from(const Section& s) {
  const auto name = s.get<std::string>("venue");
  const venue::Venue* const venue = venue::find_venue(name);
  if (venue == nullptr) throw SetupError(s.path("venue"), "the name of a venue", name);
  return *venue;
}

engine::ItchConfig itch_from(const Section& s) {
  engine::ItchConfig itch{.max_orders = s.get<std::size_t>("max_orders"),
                          .midnights = s.get<std::vector<TsNs>>("midnights"),
                          .multicast = std::nullopt};
  if (s.has("multicast")) itch.multicast = multicast_from(s.section("multicast"));
  return itch;
}

engine::FeedConfig feed_from(const Section& s) {
  using venue::binance::TradeStream;
  const venue::Venue& venue = venue_from(s);
  std::vector<engine::InstrumentConfig> instruments;
  for (const Section& instrument : s.sections("instruments")) {
    instruments.push_back({.symbol = instrument.get<std::string>("symbol"),
                           .price_decimals = instrument.get<int>("price_decimals"),
                           .qty_decimals = instrument.get<int>("qty_decimals")});
  }
  return {.name = s.get<std::string>("name"),
          .market = venue.binance,
          .itch = venue.binance ? std::nullopt : std::optional(itch_from(s)),
          .trades = s.choose<TradeStream>(
              "trades", {{"trade", TradeStream::Trade}, {"aggTrade", TradeStream::AggTrade}}),
          .url = s.get<std::string>("url"),
          .subscribe = s.get<std::vector<std::string>>("subscribe"),
          .trades_url = s.get<std::string>("trades_url"),
          .subscribe_trades = s.get<std::vector<std::string>>("subscribe_trades"),
          .inputs = s.get<std::vector<std::string>>("inputs"),
          .warm = s.get<std::vector<std::string>>("warm"),
          .instruments = std::move(instruments),
          .core = s.get<int>("core"),
          .snapshot_retries = s.get<std::uint32_t>("snapshot_retries"),
          .snapshot_backoff_ns = s.get<std::int64_t>("snapshot_backoff_ns"),
          .snapshot_limit = s.get<std::uint32_t>("snapshot_limit"),
          .max_levels = s.get<std::size_t>("max_levels"),
          .max_frame_bytes = s.get<std::size_t>("max_frame_bytes"),
          .buffer_events = s.get<std::size_t>("buffer_events"),
          .ca_file = s.get<std::string>("ca_file"),
          .reconnect_min_ns = s.get<std::int64_t>("reconnect_min_ns"),
          .reconnect_max_ns = s.get<std::int64_t>("reconnect_max_ns"),
          .max_connection_age_ns = s.get<std::int64_t>("max_connection_age_ns"),
          .liveness_timeout_ns = s.get<std::int64_t>("liveness_timeout_ns"),
          .stale_after_ns = s.get<std::int64_t>("stale_after_ns")};
}

features::FeaturePlan plan_from(const Section& s) {
  features::FeaturePlan plan;
  for (const Section& node : s.sections("nodes")) {
    const auto name = node.get<std::string>("kernel");
    const features::KernelEntry* const kernel = features::find_kernel(name);
    if (kernel == nullptr) throw SetupError(node.path("kernel"), "the name of a kernel", name);
    plan.nodes.push_back({.kernel = kernel,
                          .input = node.get<std::int32_t>("input"),
                          .levels = node.get<std::uint32_t>("levels"),
                          .window_ns = node.get<std::int64_t>("window_ns"),
                          .window_count = node.get<std::uint32_t>("window_count"),
                          .halflife_ns = node.get<std::int64_t>("halflife_ns"),
                          .lag = node.get<std::uint32_t>("lag")});
  }
  plan.outputs = s.get<std::vector<std::uint32_t>>("outputs");
  return plan;
}

engine::FeaturesConfig features_from(const Section& s) {
  using engine::Trigger;
  using engine::WindowClock;
  return {
      .trigger = s.choose<Trigger>("trigger", {{"book", Trigger::Book},
                                               {"top", Trigger::Top},
                                               {"trade", Trigger::Trade},
                                               {"every", Trigger::Every}}),
      .every_ns = s.get<std::int64_t>("every_ns"),
      .clock = s.choose<WindowClock>("clock", {{"recv", WindowClock::Recv}, {"event", WindowClock::Event}}),
      .window_rows = s.get<std::size_t>("window_rows"),
      .max_event_rate = s.get<double>("max_event_rate"),
      .trade_gaps = s.choose<engine::TradeGaps>(
          "trade_gaps", {{"count", engine::TradeGaps::Count}, {"suspect", engine::TradeGaps::Suspect}}),
      .accept_beyond_depth = s.choose<bool>("beyond_depth", {{"suspect", false}, {"accept", true}}),
      .max_age_ns = s.get<std::int64_t>("max_age_ns"),
      .plan = plan_from(s)};
}

engine::ModelConfig model_from(const Section& s) {
  using engine::Assign;
  using engine::QueuePolicy;
  return {.name = s.get<std::string>("name"),
          .members = members_from(s.get<py::list>("members")),
          .id = s.get<std::uint32_t>("id"),
          .ort_library = s.get<std::string>("ort_library"),
          .cache_dir = s.get<std::string>("cache_dir"),
          .provider = s.get<std::string>("provider"),
          .workers = s.get<std::size_t>("workers"),
          .cores = s.get<std::vector<int>>("cores"),
          .assign = s.choose<Assign>(
              "assign", {{"instrument", Assign::Instrument}, {"least_loaded", Assign::LeastLoaded}}),
          .max_batch = s.get<std::size_t>("max_batch"),
          .max_age_ns = s.get<std::int64_t>("max_age_ns"),
          .queue_slots = s.get<std::size_t>("queue_slots"),
          .policy = s.choose<QueuePolicy>("policy", {{"every", QueuePolicy::Every},
                                                     {"drop_oldest", QueuePolicy::DropOldest},
                                                     {"conflate", QueuePolicy::Conflate}}),
          .queue_limit = s.get<std::size_t>("queue_limit"),
          .shadow = s.get<bool>("shadow"),
          .start_timeout_ns = s.get<std::int64_t>("start_timeout_ns")};
}

}  // namespace

std::vector<engine::ModelMember> members_from(const py::list& list) {
  std::vector<engine::ModelMember> members;
  for (const py::handle item : list) {
    const auto [path, weight, fd] = item.cast<std::tuple<std::string, double, int>>();
    members.push_back({path, weight, fd});
  }
  return members;
}

engine::EngineConfig config_from_dict(const py::dict& dict) {
  using concurrent::IdleKind;
  const Section s(dict, "");
  std::vector<engine::FeedConfig> feeds;
  for (const Section& feed : s.sections("feeds")) feeds.push_back(feed_from(feed));
  std::vector<engine::ModelConfig> models;
  for (const Section& model : s.sections("models")) models.push_back(model_from(model));
  const Section stages = s.section("engine");
  const Section memory = s.section("memory");
  const Section record = s.section("record");
  const bool synced = record.choose<bool>("fsync", {{"interval", true}, {"never", false}});
  return {
      .layout = stages.choose<engine::Layout>("layout", {{"inline", engine::Layout::Inline},
                                                         {"threads", engine::Layout::Threads},
                                                         {"processes", engine::Layout::Processes}}),
      .idle = stages.choose<IdleKind>(
          "idle", {{"spin", IdleKind::Spin}, {"yield", IdleKind::Yield}, {"backoff", IdleKind::Backoff}}),
      .huge_pages = memory.choose<HugePages>(
          "huge_pages",
          {{"auto", HugePages::Auto}, {"require", HugePages::Require}, {"off", HugePages::Off}}),
      .lock = memory.choose<LockMemory>(
          "lock", {{"auto", LockMemory::Auto}, {"require", LockMemory::Require}, {"off", LockMemory::Off}}),
      .output_slots = stages.get<std::size_t>("output_slots"),
      .stat_path = stages.get<std::string>("stat_path"),
      .replay = s.get<bool>("replay"),
      .record_dir = s.get<std::string>("record_dir"),
      .record_sync_ns = synced ? record.get<std::int64_t>("fsync_interval_ns") : 0,
      .feeds = std::move(feeds),
      .features = features_from(s.section("features")),
      .models = std::move(models),
      .worker_program = s.get<std::string>("worker_program")};
}

}  // namespace tickwire::bindings
