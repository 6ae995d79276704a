#include "tickwire/infer/loader.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <limits>
#include <system_error>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/infer/ensemble.hpp"
#include "tickwire/infer/trial.hpp"

namespace tickwire::infer {
namespace {

constexpr const char* kExpected = "an ONNX model";

/// Protocol buffers end at 2 GiB, and so does an ONNX file.
std::size_t check_size(const std::string& path, std::int64_t size, const char* nothing) {
  if (size <= 0) throw SetupError(path, kExpected, nothing);
  if (size > std::numeric_limits<std::int32_t>::max()) {
    throw SetupError(path, "an ONNX model of less than 2 GiB",
                     std::to_string(size) + " bytes; quantise it, or take a smaller one");
  }
  return static_cast<std::size_t>(size);
}

std::vector<std::byte> read_held(const std::string& path, int fd) {
  struct stat status{};
  const bool there = ::fstat(fd, &status) == 0;
  std::vector<std::byte> bytes(
      check_size(path, there ? status.st_size : 0, "nothing at the descriptor that holds it"));
  for (std::size_t done = 0; done < bytes.size();) {
    // Several may read it at once: the descriptor's own place stays.
    const ssize_t got = ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw SetupError(path, kExpected, "a file that cannot be read whole");
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

std::vector<std::byte> read_file(const ModelMember& member) {
  const std::string& path = member.path;
  if (member.fd >= 0) return read_held(path, member.fd);
  std::error_code none;
  if (std::filesystem::is_directory(path, none)) throw SetupError(path, kExpected, "a folder");
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw SetupError(path, kExpected, "no file that can be read");
  const std::streamoff size = file.tellg();
  std::vector<std::byte> bytes(check_size(path, size, "an empty file"));
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), size))
    throw SetupError(path, kExpected, "a file that cannot be read whole");
  return bytes;
}

ModelRequest request_of(const ModelSource& source, const ModelMember& member, const ModelShape& shape,
                        std::span<const std::byte> bytes) {
  return {.path = member.path,
          .bytes = bytes,
          .rows = shape.rows,
          .features = shape.features,
          .max_batch = shape.max_batch,
          .provider = source.provider,
          .cache_dir = source.cache_dir,
          .library = source.library};
}

/// Those of an executor here.
std::vector<std::string> providers_of(const Executor& executor, const std::string& library) {
  return executor.providers == nullptr ? std::vector<std::string>{"cpu"} : executor.providers(library);
}

std::unique_ptr<Model> load_member(const ModelRequest& request, std::span<const Executor> executors) {
  std::vector<std::string> declined;
  for (const Executor& executor : executors) {
    // One that knows of others says itself what is wrong with what it is asked for.
    Made made = executor.providers == nullptr && request.provider != "cpu"
                    ? Made::declined("it runs on the cpu alone")
                    : executor.load(request);
    if (made.model != nullptr) {
      made.model->made_by(executor.name, declined);
      return std::move(made.model);
    }
    declined.push_back("not run by " + std::string(executor.name) + ": " + made.why_not);
  }
  std::string found;
  for (const std::string& each : declined) found.append(found.empty() ? "" : "; ").append(each);
  throw SetupError(request.path, "a model that can be run here", found.empty() ? "no executor" : found);
}

void check_states(const ModelInfo& info) {
  if (info.states.empty() || info.max_batch == 1) return;
  throw SetupError(info.path, "max_batch = 1, since it has state, which a row gets from the one before it",
                   std::to_string(info.max_batch));
}

}  // namespace

std::unique_ptr<Model> load_model(const ModelSource& source, const ModelShape& shape, Tried tried,
                                  std::span<const Executor> executors) {
  std::vector<std::unique_ptr<Model>> members;
  std::vector<double> weights;
  for (const ModelMember& member : source.members) {
    if (shape.max_batch == 0) throw SetupError(member.path + ": max_batch", "1 or more", "0");
    const std::vector<std::byte> bytes = read_file(member);
    members.push_back(load_member(request_of(source, member, shape, bytes), executors));
    check_states(members.back()->info());
    if (tried == Tried::No) try_out(*members.back());
    weights.push_back(member.weight);
  }
  return make_ensemble(std::move(members), std::move(weights));
}

std::vector<std::string> model_providers(const std::string& library, std::span<const Executor> executors) {
  std::vector<std::string> all{"cpu"};
  for (const Executor& executor : executors) {
    for (std::string& provider : providers_of(executor, library)) {
      if (std::find(all.begin(), all.end(), provider) == all.end()) all.push_back(std::move(provider));
    }
  }
  return all;
}

void optimize_model(const ModelSource& source, const std::string& out, const std::string& format) {
  for (const Executor& executor : kExecutors) {
    if (executor.optimize == nullptr) continue;
    const ModelMember& member = source.members.at(0);
    const std::vector<std::byte> bytes = read_file(member);
    return executor.optimize(request_of(source, member, {.rows = 0, .features = 0, .max_batch = 1}, bytes),
                             out, format);
  }
  throw SetupError(out, "an executor that writes its graphs", "none");
}

}  // namespace tickwire::infer
