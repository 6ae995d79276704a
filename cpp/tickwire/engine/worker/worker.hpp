#pragma once

/// The worker's side of the layout `processes`: a process that attaches to a channel and runs the same
/// inference agent that the layout `threads` runs on a thread. No Python in it, no memory of the engine's
/// but the channel and the statistics file, and it ends with the engine, however that ends.
///
/// tools/worker is the program around it.

#include <cstdint>
#include <string>
#include <vector>

#include "tickwire/infer/loader.hpp"

namespace tickwire::engine {

/// How an engine starts a worker. Descriptors are inherited under their numbers: of each of the model's files
/// one of a copy in memory, so that every worker and every restart reads the same bytes.
struct WorkerOrder {
  std::int32_t parent;  // The engine's process.
  std::string name;     // The agent's.
  std::string stat_path;
  int channel_fd;
  std::size_t seat;
  int waker_fd;        // Wakes the worker.
  int router_fd;       // Wakes the router …
  int router_flag_fd;  // … whose flag lies in this memory.
  infer::ModelSource model;
};

/// How an engine asks what a model is, without loading it itself.
struct DescribeOrder {
  std::int32_t parent;
  infer::ModelShape shape;
  infer::ModelSource model;
};

/// The arguments after the program's name.
[[nodiscard]] std::vector<std::string> arguments_of(const WorkerOrder& order);
[[nodiscard]] std::vector<std::string> arguments_of(const DescribeOrder& order);

/// Does what the arguments say; the exit status. Never returns from a worker that ran: it ends at once, so
/// that no library's clean-up can hold up its replacement.
int run_worker(const std::vector<std::string>& arguments);

}  // namespace tickwire::engine
