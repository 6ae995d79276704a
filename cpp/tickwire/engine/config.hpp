#pragma once

/// What the control plane hands down, resolved: every field is set, none has a default here.
/// The meaning of each, its default and why one would change it stand in py/tickwire/config/.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tickwire/concurrent/idle.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/plan.hpp"
#include "tickwire/infer/loader.hpp"
#include "tickwire/net/moldudp64/mold_feed.hpp"
#include "tickwire/venue/binance/decoder.hpp"

namespace tickwire::engine {

/// Levels a side of one message, whatever a book keeps of them: four times the largest snapshot.
inline constexpr std::size_t kMaxEventLevels = 20'000;

enum class Layout : std::uint8_t { Inline, Threads, Processes };
enum class Trigger : std::uint8_t { Book, Top, Trade, Every };
/// A hole in a venue's trade ids: rows say how many are missing, or the epoch ends.
enum class TradeGaps : std::uint8_t { Count, Suspect };
enum class WindowClock : std::uint8_t { Recv, Event };
enum class QueuePolicy : std::uint8_t { Every, DropOldest, Conflate };
/// Which of a model's workers gets a row: always the same one for an instrument, or the one with the
/// fewest rows waiting.
enum class Assign : std::uint8_t { Instrument, LeastLoaded };

struct InstrumentConfig {
  std::string symbol;
  int price_decimals;
  int qty_decimals;
};

/// What only a feed by order has, NASDAQ's ITCH.
struct ItchConfig {
  std::size_t max_orders;
  /// When the day began that the venue's times count from: of each input, or the one that the configuration
  /// names. 0, or none at all: the day of the receive times.
  std::vector<TsNs> midnights;
  /// Live, and the lines of captured datagrams.
  std::optional<net::MoldFeedConfig> multicast;
};

struct FeedConfig {
  std::string name;
  // One of these two. With ITCH, what is said of a WebSocket has no meaning.
  std::optional<venue::binance::Market> market;
  std::optional<ItchConfig> itch;
  venue::binance::TradeStream trades;
  std::string url;                            // Live.
  std::vector<std::string> subscribe;         // Live: names of the streams.
  std::string trades_url;                     // Live: a connection of their own for the trades; empty: url's.
  std::vector<std::string> subscribe_trades;  // Live: streams of that connection, empty without one.
  std::vector<std::string> inputs;            // Replay: captures, read one after another.
  std::vector<std::string> warm;              // Live: captures to begin with; empty: none.
  std::vector<InstrumentConfig> instruments;
  int core;
  std::uint32_t snapshot_retries;
  std::int64_t snapshot_backoff_ns;
  std::uint32_t snapshot_limit;  // Levels a side to ask for.
  std::size_t max_levels;
  std::size_t max_frame_bytes;
  std::size_t buffer_events;
  std::string ca_file;
  std::int64_t reconnect_min_ns;
  std::int64_t reconnect_max_ns;
  std::int64_t max_connection_age_ns;  // 0: as long as the venue lets it.
  std::int64_t liveness_timeout_ns;    // 0: a silent connection is never given up.
  std::int64_t stale_after_ns;         // 0: a book without news stays valid.
};

struct FeaturesConfig {
  Trigger trigger;
  std::int64_t every_ns;
  WindowClock clock;
  std::size_t window_rows;
  double max_event_rate;
  TradeGaps trade_gaps;
  bool accept_beyond_depth;  // Rows also where they look at levels that nobody has told of.
  std::int64_t max_age_ns;   // Live, of rows without a model: older ones leave as stale. 0: no limit.
  features::FeaturePlan plan;
};

/// Would a lost trade change a row, or when it leaves?
[[nodiscard]] bool needs_trades(const FeaturesConfig& features);

using infer::ModelMember;

struct ModelConfig {
  std::string name;
  std::vector<ModelMember> members;
  std::uint32_t id;  // First bytes of a hash over the members; what signals carry.
  std::string ort_library;
  std::string cache_dir;   // The provider's; empty: none.
  std::string provider;    // "cpu", "cuda" or "tensorrt".
  std::size_t workers;     // Inference agents; an agent of its own each, with its own session.
  std::vector<int> cores;  // One a worker, or none: they float.
  Assign assign;
  std::size_t max_batch;
  std::int64_t max_age_ns;  // Live: older rows leave as stale. 0: no limit.
  std::size_t queue_slots;
  QueuePolicy policy;
  std::size_t queue_limit;
  bool shadow;                    // Scored and recorded, never routed.
  std::int64_t start_timeout_ns;  // Layout processes: a worker that loads for longer has failed.
};

/// Its files, and what they are run with.
[[nodiscard]] inline infer::ModelSource source_of(const ModelConfig& config) {
  return {.members = config.members,
          .library = config.ort_library,
          .provider = config.provider,
          .cache_dir = config.cache_dir};
}

struct EngineConfig {
  Layout layout;
  concurrent::IdleKind idle;
  HugePages huge_pages;
  LockMemory lock;
  std::size_t output_slots;
  std::string stat_path;
  bool replay;
  std::string record_dir;       // Empty: nothing is recorded.
  std::int64_t record_sync_ns;  // What is recorded is brought to the disk so often; 0: as the kernel likes.
  std::vector<FeedConfig> feeds;
  FeaturesConfig features;
  std::vector<ModelConfig> models;
  std::string worker_program;  // Layout processes: tickwire-worker.
};

}  // namespace tickwire::engine
