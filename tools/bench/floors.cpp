/// tickwire-bench-floors: what a stage costs beside what it could cost at least, in one run.
///
///     tickwire-bench-floors --model FILE --batch-model FILE --library libonnxruntime.so [--rounds 15]
///                           [--json FILE]
///
///   decode   our decoder, to integers and a normalized event, beside itself without its scanner, and beside
///            simdjson on demand alone on the same frames: visiting every field and level, and the same with
///            each number made a double
///   model    infer::Model::run beside a bare Run of ONNX Runtime's C API on values made once; the two take
///            turns after a hundred runs, so that the difference of a few ns is not the machine's
///   rows     the same rows in runs of 1, 2, 4 … 64 of them, with a model whose batch is free
///   loopback from before a paced send() of a frame to another thread having read it with a bare recvmsg(),
///            and from the kernel's receive stamp; the reader spins, or sleeps in poll()
///   queue    our ring beside moodycamel::ReaderWriterQueue: a record handed over on one thread, and to
///            another thread and back (two hops), both sides spinning
///
/// The sides take turns round by round, so that what else the machine does hits them alike. The median
/// of the rounds is shown, and the medians of the rounds' ratios and differences. Read those.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <onnxruntime_c_api.h>
#include <poll.h>
#include <readerwriterqueue/readerwriterqueue.h>
#include <sched.h>
#include <simdjson.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "market.hpp"
#include "options.hpp"
#include "pace.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/infer/loader.hpp"
#include "tickwire/infer/onnxruntime/ort_api.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/venue/binance/decoder.hpp"

namespace tickwire::bench {
namespace {

constexpr std::size_t kFrames = 2000;  // 3 MB: as on a live feed, a frame is not in the nearest cache.
constexpr std::size_t kFeatures = 8;
constexpr std::size_t kRecordBytes = 192;  // A row of that many features on its way to a model.
constexpr std::size_t kSlots = 1024;

/// One side of a comparison: does `operations` of them.
struct Side {
  std::string name;
  std::function<void(std::size_t operations)> work;
};

struct Comparison {
  std::string stage;
  std::size_t operations;   // A round.
  std::vector<Side> sides;  // Ours first, then its floors.
  int times = 1;            // As many rounds as the others have.
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// ---------------------------------------------------------------------------------------------------
// Decode

struct Frames {
  std::vector<std::string> frames;

  Frames() {
    SyntheticBook book({.market = Market::Spot, .symbol = "BTCUSDT", .levels = 20, .seed = 1});
    for (std::size_t i = 0; i < kFrames; ++i) {
      std::string frame;
      book.next(frame, 1'700'000'000'000);
      frame.reserve(frame.size() + venue::binance::Decoder::kPaddingBytes);
      frames.push_back(std::move(frame));
    }
  }
};

volatile double sink;

/// Visits what a decoder has to visit. `Number` is called with each price and quantity.
template <typename Number>
void walk(simdjson::ondemand::parser& parser, const std::string& frame, Number&& number) {
  namespace ondemand = simdjson::ondemand;
  ondemand::document document =
      parser.iterate(frame.data(), frame.size(), frame.size() + venue::binance::Decoder::kPaddingBytes);
  ondemand::object data = document["data"].get_object();
  std::uint64_t ids = 0;
  for (auto field : data) {
    const std::string_view key = field.unescaped_key();
    if (key == "b" || key == "a") {
      for (auto level : field.value().get_array()) {
        for (auto cell : level.get_array()) number(cell);
      }
    } else if (key == "U" || key == "u" || key == "E") {
      ids += field.value().get_uint64().value();
    } else {
      ids += field.value().get_string().value().size();
    }
  }
  sink = static_cast<double>(ids);
}

Comparison decode_stage(const Frames& frames) {
  auto table = std::make_shared<md::InstrumentTable>();
  table->add({"BTCUSDT", "binance_spot", 8, 8});
  auto parser = std::make_shared<simdjson::ondemand::parser>(1U << 20U);
  const auto ours = [table, &frames](bool scan) {
    auto decoder = std::make_shared<venue::binance::Decoder>(
        *table, venue::binance::DecoderConfig{venue::binance::Market::Spot,
                                              venue::binance::TradeStream::Trade, 1U << 20U, 1000, scan});
    return [table, decoder, &frames](std::size_t operations) {
      md::Event event{};
      for (std::size_t i = 0; i < operations; ++i) {
        const std::string& frame = frames.frames[i % kFrames];
        if (decoder->decode(frame, RecvClock::Read, 1, event) != venue::binance::Outcome::Event) {
          throw std::runtime_error("a frame that the decoder refuses");
        }
        sink = static_cast<double>(event.last_id);
      }
    };
  };
  const auto tokens = [parser, &frames](std::size_t operations) {
    for (std::size_t i = 0; i < operations; ++i) {
      std::size_t size = 0;
      walk(*parser, frames.frames[i % kFrames],
           [&size](auto& cell) { size += cell.get_string().value().size(); });
      sink = static_cast<double>(size);
    }
  };
  const auto doubles = [parser, &frames](std::size_t operations) {
    for (std::size_t i = 0; i < operations; ++i) {
      double sum = 0;
      walk(*parser, frames.frames[i % kFrames],
           [&sum](auto& cell) { sum += cell.get_double_in_string().value(); });
      sink = sum;
    }
  };
  return {"decode",
          4 * kFrames,
          {{"decoder", ours(true)},
           {"decoder, JSON parser", ours(false)},
           {"simdjson, strings", tokens},
           {"simdjson, doubles", doubles}}};
}

// ---------------------------------------------------------------------------------------------------
// Model

/// The least that a Run of the C API needs: one session, one input, one output, made once.
class BareModel {
 public:
  BareModel(const OrtApi& api, const std::string& path, std::array<float, kFeatures>& input) : api_(api) {
    check(api_.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "bench", &env_));
    check(api_.CreateSessionOptions(&options_));
    check(api_.SetIntraOpNumThreads(options_, 1));
    check(api_.SetInterOpNumThreads(options_, 1));
    check(api_.SetSessionGraphOptimizationLevel(options_, ORT_ENABLE_ALL));
    check(api_.CreateSession(env_, path.c_str(), options_, &session_));
    OrtAllocator* allocator = nullptr;
    check(api_.GetAllocatorWithDefaultOptions(&allocator));
    check(api_.SessionGetInputName(session_, 0, allocator, &input_name_));
    check(api_.SessionGetOutputName(session_, 0, allocator, &output_name_));
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    const std::array<std::int64_t, 2> shape{1, kFeatures};
    check(api_.CreateTensorWithDataAsOrtValue(memory_, input.data(), sizeof input, shape.data(), shape.size(),
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input_));
    const std::array<std::int64_t, 2> scores{1, static_cast<std::int64_t>(output_.size())};
    check(api_.CreateTensorWithDataAsOrtValue(memory_, output_.data(), sizeof output_, scores.data(),
                                              scores.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &scores_));
  }
  BareModel(const BareModel&) = delete;
  BareModel& operator=(const BareModel&) = delete;

  float run() {
    check(api_.Run(session_, nullptr, &input_name_, &input_, 1, &output_name_, 1, &scores_));
    return output_[0];
  }

 private:
  void check(OrtStatus* status) {
    if (status != nullptr) throw std::runtime_error(api_.GetErrorMessage(status));
  }

  // Lives as long as the program, as the library does.
  const OrtApi& api_;
  OrtEnv* env_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  char* input_name_ = nullptr;
  char* output_name_ = nullptr;
  OrtValue* input_ = nullptr;
  OrtValue* scores_ = nullptr;
  std::array<float, 3> output_{};
};

std::shared_ptr<infer::Model> load_model(const std::string& library, const std::string& path,
                                         std::size_t max_batch) {
  return infer::load_model(
      {.members = {{.path = path, .weight = 1.0}}, .library = library, .provider = "cpu", .cache_dir = ""},
      {.rows = 1, .features = kFeatures, .max_batch = max_batch});
}

Comparison model_stage(const std::string& library, const std::string& path) {
  const infer::OrtRuntime& runtime = infer::open_ort(library);
  alignas(64) static std::array<float, kFeatures> input{};
  for (std::size_t i = 0; i < kFeatures; ++i) input[i] = 0.1F * static_cast<float>(i + 1);
  std::shared_ptr<infer::Model> model = load_model(library, path, 1);
  const std::size_t handle = model->bind(input.data());
  auto bare = std::make_shared<BareModel>(*runtime.api, path, input);
  const auto ours = [model, handle](std::size_t operations) {
    std::array<float, infer::kMaxScores> scores{};
    const std::span<float> out{scores.data(), model->info().score_names.size()};
    for (std::size_t i = 0; i < operations; ++i) {
      if (!model->run(handle, out)) throw std::runtime_error(std::string(model->last_error()));
      sink = static_cast<double>(scores[0]);
    }
  };
  const auto alone = [bare](std::size_t operations) {
    for (std::size_t i = 0; i < operations; ++i) sink = static_cast<double>(bare->run());
  };
  ours(infer::kWarmUpRuns);
  alone(infer::kWarmUpRuns);
  return {"model", 100, {{"Model::run", ours}, {"ONNX Runtime, Run alone", alone}}, 40};
}

Comparison batch_stage(const std::string& library, const std::string& path) {
  constexpr std::size_t kMaxBatch = 64;
  alignas(64) static std::array<float, kMaxBatch * kFeatures> input{};
  for (std::size_t i = 0; i < input.size(); ++i) input[i] = 0.01F * static_cast<float>(i + 1);
  std::shared_ptr<infer::Model> model = load_model(library, path, kMaxBatch);
  model->warm_up(4 * infer::kWarmUpRuns, infer::kWarmUpMaxNs);
  const std::size_t handle = model->bind(input.data());
  Comparison rows{"rows", 2 * kMaxBatch, {}, 8};
  for (std::size_t batch = 1; batch <= kMaxBatch; batch *= 2) {
    rows.sides.push_back({std::to_string(batch) + " a run", [model, handle, batch](std::size_t operations) {
                            std::array<float, kMaxBatch * 3> scores{};
                            const std::size_t count = batch * model->info().score_names.size();
                            const std::span<float> out = std::span(scores).subspan(0, count);
                            for (std::size_t i = 0; i < operations; i += batch) {
                              if (!model->run_batch(handle, batch, out))
                                throw std::runtime_error(std::string(model->last_error()));
                              sink = static_cast<double>(scores[0]);
                            }
                          }});
  }
  return rows;
}

// ---------------------------------------------------------------------------------------------------
// Queue

struct Record {
  std::uint64_t number;
  std::array<std::byte, kRecordBytes - sizeof(std::uint64_t)> rest;
};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Both queues behind one shape: write a record in place or by value as the queue has it, read its number
/// where it lies.
class OurQueue {
 public:
  OurQueue() : queue_(arena_, sizeof(Record), kSlots) {}
  void push(const Record& record) {
    std::memcpy(queue_.try_claim(), &record, sizeof record);
    queue_.publish();
  }
  bool pop(std::uint64_t& number) {
    if (queue_.readable() == 0) return false;
    std::memcpy(&number, queue_.slot(0), sizeof number);
    queue_.release(1);
    return true;
  }

 private:
  Arena arena_;
  concurrent::SpscQueue queue_;
};

class PublicQueue {
 public:
  void push(const Record& record) { queue_.try_enqueue(record); }
  bool pop(std::uint64_t& number) {
    const Record* const front = queue_.peek();
    if (front == nullptr) return false;
    number = front->number;
    queue_.pop();
    return true;
  }

 private:
  moodycamel::ReaderWriterQueue<Record> queue_{kSlots};
};

template <typename Queue>
Side hand_over(std::string name) {
  auto queue = std::make_shared<Queue>();
  return {std::move(name), [queue](std::size_t operations) {
            Record record{};
            std::uint64_t number = 0;
            for (std::size_t i = 0; i < operations; ++i) {
              record.number = i;
              queue->push(record);
              if (!queue->pop(number) || number != i) throw std::runtime_error("a record was lost");
            }
            sink = static_cast<double>(number);
          }};
}

/// While it lives the calling thread runs on one of the cores that the process may use. Two threads that
/// spin for each other on one core would measure the scheduler.
class OnCore {
 public:
  explicit OnCore(unsigned number) {
    ::sched_getaffinity(0, sizeof before_, &before_);
    for (unsigned core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &before_) || number-- != 0) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(core, &one);
      ::sched_setaffinity(0, sizeof one, &one);
      return;
    }
    throw std::runtime_error("the queue's round trip needs two cores");
  }
  ~OnCore() { ::sched_setaffinity(0, sizeof before_, &before_); }
  OnCore(const OnCore&) = delete;
  OnCore& operator=(const OnCore&) = delete;

 private:
  cpu_set_t before_{};
};

template <typename Queue>
Side round_trip(std::string name) {
  auto there = std::make_shared<Queue>();
  auto back = std::make_shared<Queue>();
  return {std::move(name), [there, back](std::size_t operations) {
            std::thread echo([&] {
              const OnCore second(1);
              Record record{};
              for (std::size_t i = 0; i < operations; ++i) {
                while (!there->pop(record.number)) pause();
                back->push(record);
              }
            });
            const OnCore first(0);
            Record record{};
            for (std::size_t i = 0; i < operations; ++i) {
              record.number = i;
              there->push(record);
              std::uint64_t number = 0;
              while (!back->pop(number)) pause();
            }
            echo.join();
          }};
}

// ---------------------------------------------------------------------------------------------------
// Loopback

/// Two ends of one TCP connection on loopback.
class Connection {
 public:
  Connection() {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const int on = 1;
    writer = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto good = ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                      ::listen(listener, 1) == 0 &&
                      ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
                      ::connect(writer, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                      (reader = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) >= 0 &&
                      ::setsockopt(writer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
                      ::setsockopt(reader, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0;
    ::close(listener);
    if (!good) throw std::runtime_error("no connection on loopback");
  }
  ~Connection() {
    ::close(writer);
    ::close(reader);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int writer = -1;
  int reader = -1;
};

/// Of each frame, ns.
struct Loopback {
  std::vector<double> from_send;
  std::vector<double> from_stamp;
};

Loopback loopback(const Frames& frames, std::size_t count, std::int64_t pace_ns, bool sleeps) {
  const Connection connection;
  std::vector<std::int64_t> sent(count);
  std::vector<std::int64_t> stamped(count);
  std::vector<std::int64_t> read(count);
  std::thread reading([&] {
    std::vector<char> room(1U << 16U);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t missing = frames.frames[i % kFrames].size(); missing != 0;) {
        pollfd ready{connection.reader, POLLIN, 0};
        if (sleeps) ::poll(&ready, 1, -1);
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(timespec))];
        iovec io{room.data(), missing};
        msghdr message{};
        message.msg_iov = &io;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const ssize_t got = ::recvmsg(connection.reader, &message, MSG_DONTWAIT);
        if (got == 0) return;
        if (got < 0) continue;
        read[i] = now_ns(CLOCK_REALTIME);
        missing -= static_cast<std::size_t>(got);
        const cmsghdr* const header = CMSG_FIRSTHDR(&message);
        timespec stamp{};
        if (header != nullptr) std::memcpy(&stamp, CMSG_DATA(header), sizeof stamp);
        stamped[i] = stamp.tv_sec * kSecond + stamp.tv_nsec;
      }
    }
  });
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  const std::int64_t start = now_ns(CLOCK_MONOTONIC) + pace_ns;
  for (std::size_t i = 0; i < count; ++i) {
    const std::string& frame = frames.frames[i % kFrames];
    wait_until(start + static_cast<std::int64_t>(i) * pace_ns, 30'000);
    sent[i] = now_ns(CLOCK_REALTIME);
    if (::send(connection.writer, frame.data(), frame.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(frame.size())) {
      ::shutdown(connection.writer, SHUT_WR);
      reading.join();
      throw std::runtime_error("a frame that does not go out at once");
    }
  }
  reading.join();
  Loopback result;
  for (std::size_t i = 0; i < count; ++i) {
    result.from_send.push_back(static_cast<double>(read[i] - sent[i]));
    result.from_stamp.push_back(static_cast<double>(read[i] - stamped[i]));
  }
  return result;
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

/// As JSON; also prints it.
std::string loopback_floors(const Frames& frames) {
  constexpr std::size_t kCount = 3000;
  std::string json = "{";
  std::printf("\n%-22s  %10s  %10s  %14s  %14s\n", "loopback, ns", "p50", "p99", "of stamp, p50", "p99");
  for (const bool sleeps : {false, true}) {
    const Loopback found = loopback(frames, kCount, kSecond / 1000, sleeps);
    const char* const name = sleeps ? "sleeps" : "spins";
    const std::array<double, 4> ns{percentile(found.from_send, 0.5), percentile(found.from_send, 0.99),
                                   percentile(found.from_stamp, 0.5), percentile(found.from_stamp, 0.99)};
    std::printf("the reader %-11s  %10.0f  %10.0f  %14.0f  %14.0f\n", name, ns[0], ns[1], ns[2], ns[3]);
    char line[256];
    std::snprintf(line, sizeof line,
                  R"(%s"%s":{"sender":{"p50":%.0f,"p99":%.0f},"ts_recv":{"p50":%.0f,"p99":%.0f}})",
                  sleeps ? ",\n" : "", name, ns[0], ns[1], ns[2], ns[3]);
    json += line;
  }
  return json + "}";
}

// ---------------------------------------------------------------------------------------------------

struct Result {
  std::string stage;
  std::string name;
  double ns;
  double ratio;  // Ours to this one; 1 for ours.
  double minus;  // Ours less this one, ns; 0 for ours.
};

std::vector<Result> measure(const Comparison& comparison, int rounds) {
  const std::size_t count = comparison.sides.size();
  std::vector<std::vector<double>> ns(count);
  std::vector<std::vector<double>> ratios(count);
  std::vector<std::vector<double>> differences(count);
  for (int round = -1; round < rounds * comparison.times; ++round) {  // The first warms up.
    std::vector<double> now(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t side = (i + static_cast<std::size_t>(round + 1)) % count;
      const std::uint64_t begin = tsc_now();
      comparison.sides[side].work(comparison.operations);
      now[side] =
          static_cast<double>(tsc_to_ns(tsc_now() - begin)) / static_cast<double>(comparison.operations);
    }
    if (round < 0) continue;
    for (std::size_t i = 0; i < count; ++i) {
      ns[i].push_back(now[i]);
      ratios[i].push_back(now[0] / now[i]);
      differences[i].push_back(now[0] - now[i]);
    }
  }
  std::vector<Result> results;
  for (std::size_t i = 0; i < count; ++i) {
    results.push_back({comparison.stage, comparison.sides[i].name, median(ns[i]), median(ratios[i]),
                       median(differences[i])});
  }
  return results;
}

int run(const Options& options) {
  const auto rounds = options.number<int>("rounds");
  if (rounds < 1) throw std::runtime_error("--rounds: expected a positive number");
  const Frames frames;
  std::vector<Comparison> comparisons{decode_stage(frames)};
  if (!options.text("model").empty())
    comparisons.push_back(model_stage(options.text("library"), options.text("model")));
  if (!options.text("batch-model").empty())
    comparisons.push_back(batch_stage(options.text("library"), options.text("batch-model")));
  comparisons.push_back(
      {"queue, one thread",
       1'000'000,
       {hand_over<OurQueue>("SpscQueue"), hand_over<PublicQueue>("moodycamel::ReaderWriterQueue")}});
  comparisons.push_back(
      {"queue, there and back",
       50'000,
       {round_trip<OurQueue>("SpscQueue"), round_trip<PublicQueue>("moodycamel::ReaderWriterQueue")}});

  std::string json = R"({"stages":[)";
  bool first = true;
  std::printf("stages beside their floors: median of %d interleaved rounds\n\n", rounds);
  std::printf("%-22s  %-30s  %12s  %14s  %14s  %14s\n", "", "", "ns", "a second", "ours to this",
              "ours - this, ns");
  for (const Comparison& comparison : comparisons) {
    for (const Result& result : measure(comparison, rounds)) {
      const bool ours = result.name == comparison.sides.front().name;
      char ratio[32] = "";
      char minus[32] = "";
      if (!ours) std::snprintf(ratio, sizeof ratio, "%.2fx", result.ratio);
      if (!ours) std::snprintf(minus, sizeof minus, "%.1f", result.minus);
      std::printf("%-22s  %-30s  %12.1f  %14.0f  %14s  %14s\n", ours ? result.stage.c_str() : "",
                  result.name.c_str(), result.ns, 1e9 / result.ns, ratio, minus);
      char line[256];
      std::snprintf(line, sizeof line,
                    R"(%s{"stage":"%s","name":"%s","ns":%.2f,"ours_to_this":%.3f,"ours_minus_this_ns":%.2f})",
                    first ? "" : ",\n ", result.stage.c_str(), result.name.c_str(), result.ns, result.ratio,
                    result.minus);
      json += line;
      first = false;
    }
  }
  json += "],\n\"loopback\":" + loopback_floors(frames) + "}";
  if (!options.text("json").empty()) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(options.text("json").c_str(), "w"),
                                                               &std::fclose);
    if (!file) throw std::runtime_error("--json: cannot be written");
    std::fprintf(file.get(), "%s\n", json.c_str());
  }
  return 0;
}

}  // namespace
}  // namespace tickwire::bench

int main(int argc, char** argv) {
  try {
    return tickwire::bench::run(
        {argc,
         argv,
         1,
         {{"model", ""}, {"batch-model", ""}, {"library", ""}, {"rounds", "15"}, {"json", ""}}});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tickwire-bench-floors: %s\n", error.what());
    return 1;
  }
}
