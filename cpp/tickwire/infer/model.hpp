#pragma once

/// What the engine knows of a model: a fixed block of floats goes in, a few scores come out.
///
/// The interface knows neither a market nor the runtime behind it. A block of `rows` × `features` floats,
/// oldest row first, is what one answer is given to. A run scores one block, or several that lie one
/// behind the other, in the memory that the caller registered with bind().
///
/// A model may have state: named tensors that a run reads beside its block and leaves for the next run, a
/// recurrent layer's, say. They lie in the caller's memory, too, so that whoever has several instruments
/// keeps one set of each and sets it to zero where an epoch begins.
///
/// One thread uses a model at a time. load, bind() and warm_up() are setup and throw SetupError;
/// run() is the data plane. Two agents that score with one file load it twice.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/hot.hpp"

namespace tickwire::infer {

/// Scores a model may give. A signal record carries them all, so the number is kept small.
inline constexpr std::size_t kMaxScores = 64;

/// Runs before the first real one. The first calls of a session allocate and pack (milliseconds); from
/// a few dozen on the times no longer fall, 200 leaves room for branchy models such as trees.
inline constexpr std::size_t kWarmUpRuns = 200;
/// A large model is warm after fewer runs, and start-up does not wait longer than this for it.
inline constexpr std::int64_t kWarmUpMaxNs = 2'000'000'000;

/// Floats that a run reads and replaces by those that the next one is to read.
struct StateTensor {
  std::string name;
  std::vector<std::size_t> shape;

  [[nodiscard]] std::size_t floats() const noexcept;
};

/// What a loaded model turned out to be.
struct ModelInfo {
  std::string path;
  std::string input_name;
  std::size_t rows;       // T of [1, T, F]; 1 for [1, F].
  std::size_t features;   // F.
  std::size_t max_batch;  // Blocks that one run may score; 1 unless the model was loaded for more.
  std::vector<std::string>
      score_names;                  // One a score: the output's name, with _0, _1 … where it has several.
  std::vector<StateTensor> states;  // Beside the input; none in most models.
  std::string executor;             // "onnxruntime 1.32.0 cpu": scores compare bit for bit only within one.
  std::string schema_json;          // Metadata tickwire.schema; empty in a model that was never bound.
  std::string schema_sha256;        // Metadata tickwire.schema.sha256, likewise.
  std::vector<std::string> notes;   // For the start-up report: outputs that are not scores.
  bool exact = true;                // A row's scores are the same bits each time; not so on a GPU.

  /// Of all states together.
  [[nodiscard]] std::size_t state_floats() const noexcept;
};

class Model {
 public:
  explicit Model(ModelInfo info = {}) : info_(std::move(info)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const ModelInfo& info() const noexcept { return info_; }

  /// Setup only. Registers max_batch blocks, one behind the other without gaps, and returns the handle
  /// that run() and run_batch() take. A run reads as many of them as it scores, where they lie, so they
  /// must be there whenever it runs. Start them on a cache line: a runtime may sum in another order from
  /// another alignment, so a score repeats bit for bit only from the same one (address modulo 64).
  ///
  /// `states`: the floats of info().states, one tensor behind the other. A run of this handle reads and
  /// replaces them. Throws SetupError unless they are as many: a model with state is of no use to a caller
  /// who keeps none for it.
  std::size_t bind(const float* inputs, std::span<float> states = {});

  /// Setup only, on the thread that will run the model, so that its caches and branch predictors are
  /// the ones that warm up. Runs on made-up rows, and states of its own, until `runs` are done or `max_ns`
  /// are over; returns how many were done. Throws when a run fails.
  virtual std::size_t warm_up(std::size_t runs, std::int64_t max_ns) = 0;

  /// Scores what the bound memory holds now. `scores` has one place a score name. False when the
  /// runtime failed: the scores are then as they were, and last_error() says why.
  [[nodiscard]] bool run(std::size_t handle, std::span<float> scores) noexcept TICKWIRE_HOT {
    return run_batch(handle, 1, scores);
  }

  /// Scores the first `count` blocks of a bound batch, 1 … max_batch, in one run: `scores` gets those of
  /// the first block, then those of the second … The runtime may sum in another order for another
  /// count, so a score repeats bit for bit only from a batch of the same size. Fails as run() does.
  [[nodiscard]] virtual bool run_batch(std::size_t handle, std::size_t count,
                                       std::span<float> scores) noexcept TICKWIRE_HOT = 0;

  /// Any thread, once, at the end: a run that goes on is ended at the next operator, as failed, and so is
  /// each later one. For a model that would keep its thread for ever.
  virtual void interrupt() noexcept {}

  /// Why a run last returned false; valid until the next one.
  [[nodiscard]] virtual std::string_view last_error() const noexcept TICKWIRE_HOT = 0;

  /// Setup only, the loader's: the name of the executor goes before what it says of itself, and the notes
  /// behind its own.
  void made_by(std::string_view executor, const std::vector<std::string>& notes);

 protected:
  /// What bind() has found right.
  virtual std::size_t add_binding(const float* inputs, std::span<float> states) = 0;

  ModelInfo info_;
};

}  // namespace tickwire::infer
