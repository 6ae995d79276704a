#include "tickwire/infer/onnxruntime/ort_model.hpp"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <set>

// The C++ wrapper is for setup, where its exceptions are welcome; MANUAL_INIT keeps it from calling
// OrtGetApiBase, which we do not link.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT
#include <onnxruntime_session_options_config_keys.h>

#include "tickwire/core/error.hpp"
#include "tickwire/infer/aligned_floats.hpp"
#include "tickwire/infer/denormals.hpp"
#include "tickwire/infer/onnxruntime/ort_api.hpp"
#include "tickwire/infer/onnxruntime/ort_provider.hpp"

namespace tickwire::infer {
namespace {

/// The text of an error comes back in its status; below fatal the runtime would also write it to stderr,
/// from the thread that runs the model.
constexpr OrtLoggingLevel kLogLevel = ORT_LOGGING_LEVEL_FATAL;

const char* name_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return "float32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return "float64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return "float16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return "bfloat16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return "int8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return "uint8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16: return "int16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: return "uint16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return "int32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return "uint32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return "int64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return "uint64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return "bool";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING: return "string";
    default: return "another type";
  }
}

/// One input or output as the file declares it.
struct Port {
  std::string name;
  bool tensor = false;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<std::int64_t> shape;   // -1 where it is not fixed.
  std::vector<std::string> symbols;  // Names of the free dimensions; "" where it has none.

  [[nodiscard]] bool is_float() const { return tensor && type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

  /// "x: float32[batch, 5]"
  [[nodiscard]] std::string text() const {
    if (!tensor) return name + ": not a tensor (a sequence or a map)";
    std::string out = name + ": " + name_of(type) + "[";
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (i > 0) out += ", ";
      out += shape[i] >= 0 ? std::to_string(shape[i]) : symbols[i].empty() ? "?" : symbols[i];
    }
    return out + "]";
  }
};

Port describe(std::string name, const Ort::TypeInfo& info) {
  Port port;
  port.name = std::move(name);
  if (info.GetONNXType() != ONNX_TYPE_TENSOR) return port;
  const auto tensor = info.GetTensorTypeAndShapeInfo();
  port.tensor = true;
  port.type = tensor.GetElementType();
  port.shape = tensor.GetShape();
  std::vector<const char*> symbols(port.shape.size());
  tensor.GetSymbolicDimensions(symbols.data(), symbols.size());
  port.symbols.assign(symbols.begin(), symbols.end());
  return port;
}

std::vector<Port> ports(const Ort::Session& session, bool inputs) {
  Ort::AllocatorWithDefaultOptions allocator;
  std::vector<Port> out;
  const std::size_t count = inputs ? session.GetInputCount() : session.GetOutputCount();
  for (std::size_t i = 0; i < count; ++i) {
    const auto name =
        inputs ? session.GetInputNameAllocated(i, allocator) : session.GetOutputNameAllocated(i, allocator);
    out.push_back(describe(name.get(), inputs ? session.GetInputTypeInfo(i) : session.GetOutputTypeInfo(i)));
  }
  return out;
}

std::string text(const std::vector<Port>& list) {
  std::string out;
  for (const Port& port : list) out += (out.empty() ? "" : "; ") + port.text();
  return out;
}

/// What to do about an input that does not fit.
std::string input_advice(const Port& input) {
  const auto free_inside = [&] {
    return std::any_of(input.shape.begin() + 1, input.shape.end(), [](std::int64_t d) { return d < 0; });
  };
  if (!input.is_float()) return "; cast it inside the model";
  if (input.shape.size() != 2 && input.shape.size() != 3) {
    return "; export it with the shape [1, features] or [1, rows, features]";
  }
  if (free_inside()) return "; give every dimension but the first its size when you export it";
  if (input.shape[0] > 1) return "; export it with a batch of 1, or a free one";
  return "; features.rows and features.window_rows must be what it was trained on";
}

/// What to do about an output that is no score; empty where nothing helps.
std::string output_advice(const Port& output) {
  if (!output.tensor) {
    return "convert it with options={'zipmap': False} (skl2onnx) or zipmap=False (onnxmltools), so that "
           "probabilities are a tensor";
  }
  switch (output.type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return output.name + ": cast it to float32 inside the model, or convert a model of float32";
    default: return "";
  }
}

/// What to do about a model none of whose outputs is a score.
std::string outputs_advice(const std::vector<Port>& outputs) {
  for (const Port& output : outputs) {
    const std::string advice = output_advice(output);
    if (!advice.empty()) return "; " + advice;
  }
  return outputs.empty() ? "" : "; export what it is computed from, scores or probabilities, as float32";
}

/// The model's input, checked against what the feature schema makes.
Port check_input(const ModelRequest& request, const Ort::Session& session) {
  std::vector<Port> inputs = ports(session, true);
  const bool any = request.rows == 0 && request.features == 0;
  std::string expected = "one input of float32[1, ";
  if (any) {
    expected += "features] or float32[1, rows, features]";
  } else {
    if (request.rows > 1) expected.append(std::to_string(request.rows)).append(", ");
    expected.append(std::to_string(request.features)).append("]");
  }
  if (inputs.size() != 1) {
    std::string found = "none";
    if (!inputs.empty()) {
      found = std::to_string(inputs.size()) + " inputs: " + text(inputs) +
              "; join them into one, inside the model";
    }
    throw SetupError(request.path, expected, found);
  }
  Port& input = inputs.front();
  const auto rows = static_cast<std::int64_t>(request.rows);
  const auto features = static_cast<std::int64_t>(request.features);
  const auto& shape = input.shape;
  const auto is = [any](std::int64_t found, std::int64_t size) { return any ? found > 0 : found == size; };
  const bool batch_of_one = !shape.empty() && (shape[0] == 1 || shape[0] < 0);
  const bool row = shape.size() == 2 && (any || rows == 1) && is(shape[1], features);
  const bool window = shape.size() == 3 && is(shape[1], rows) && is(shape[2], features);
  if (!input.is_float() || !batch_of_one || !(row || window))
    throw SetupError(request.path, expected, input.text() + input_advice(input));
  if (request.max_batch > 1 && shape[0] == 1) {
    throw SetupError(request.path,
                     "a free batch dimension, for batches of " + std::to_string(request.max_batch),
                     input.text() + "; export it with a dynamic batch axis, or set max_batch = 1");
  }
  return std::move(input);
}

/// ONNX Runtime's text of an error without the place in its sources, and what to do about it.
std::string explain(std::string text) {
  if (text.starts_with("/onnxruntime_src/")) {
    const std::size_t end = text.find(") ");
    if (end != std::string::npos) text.erase(0, end + 2);
  }
  while (text.ends_with('\n')) text.pop_back();
  struct Advice {
    const char* where;
    const char* what;
  };
  static constexpr Advice kAdvice[] = {
      {"protobuf parsing failed", "the file is damaged or no ONNX model; export or copy it again"},
      {"Opset", "export it with an older opset, or install a newer onnxruntime"},
      {"IR version", "export it with an older onnx, or install a newer onnxruntime"},
      {"No Op registered", "this ONNX Runtime lacks the operator; export without it, or install a newer one"},
      {"not a registered function", "this ONNX Runtime lacks the operator; export without it"},
      {"Could not find an implementation",
       "this ONNX Runtime has the operator only for other types or opsets; export it with a newer opset or "
       "another type"},
      {"xternal data",
       "save the model in one file: torch.onnx.export(…, external_data=False), or onnx.save(model, path, "
       "save_as_external_data=False)"},
      {"model_path must not be empty",
       "its weights are in another file; save the model in one: torch.onnx.export(…, external_data=False), "
       "or "
       "onnx.save(model, path, save_as_external_data=False)"},
      {"fallback to CPU EP", "the provider cannot run all of it; use provider = \"cpu\""},
      {"ORT format", "make it again with this ONNX Runtime: tickwire model optimize --format ort"},
  };
  for (const Advice& advice : kAdvice) {
    if (text.find(advice.where) != std::string::npos) return text + "; " + advice.what;
  }
  return text;
}

/// One for the process. Never destroyed: a session may be released after a static destructor would run.
const Ort::Env& environment() {
  static const Ort::Env* const env = new Ort::Env(kLogLevel, "tickwire");
  return *env;
}

Ort::SessionOptions session_options(const std::string& batch_symbol) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);  // One thread: the caller's. No pool, so nothing spins or wakes.
  options.SetInterOpNumThreads(1);
  options.SetExecutionMode(ORT_SEQUENTIAL);
  options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
  options.EnableCpuMemArena();
  options.EnableMemPattern();
  options.SetLogSeverityLevel(kLogLevel);
  // For threads that the runtime itself might start; on ours FlushDenormals does it.
  options.AddConfigEntry(kOrtSessionOptionsConfigSetDenormalAsZero, "1");
  if (!batch_symbol.empty()) {
    Ort::ThrowOnError(Ort::GetApi().AddFreeDimensionOverrideByName(options, batch_symbol.c_str(), 1));
  }
  return options;
}

/// Options for a model whose input is known.
Ort::SessionOptions provider_options(const OrtRuntime& runtime, const ModelRequest& request,
                                     const Port& input, const std::string& batch_symbol) {
  Ort::SessionOptions options = session_options(batch_symbol);
  append_provider(runtime,
                  {.name = request.provider,
                   .cache_dir = request.cache_dir,
                   .input_name = input.name,
                   .shape = input.shape,
                   .max_batch = request.max_batch},
                  *static_cast<OrtSessionOptions*>(options));
  return options;
}

Ort::Session create(const OrtRuntime& runtime, const ModelRequest& request,
                    const Ort::SessionOptions& options) {
  try {
    return {environment(), request.bytes.data(), request.bytes.size(), options};
  } catch (const Ort::Exception& error) {
    throw SetupError(request.path, "an ONNX model that ONNX Runtime " + runtime.version + " can run",
                     explain(error.what()));
  }
}

class OrtModel final : public Model {
 public:
  OrtModel(const OrtRuntime& runtime, const ModelRequest& request)
      : api_(*runtime.api), scratch_(0), outputs_(0) {
    // The first session of a process sets the flush bits on the thread that creates it and leaves
    // them; this puts that thread's state back. It also makes folded constants the same everywhere.
    const FlushDenormals flush;
    session_ = create(runtime, request, session_options(""));
    Port input = check_input(request, session_);
    // What the file declares is known only now: again, with what depends on it.
    const bool on_cpu = request.provider == "cpu";
    const std::string batch_symbol = request.max_batch == 1 && input.shape[0] < 0 ? input.symbols[0] : "";
    if (!on_cpu || !batch_symbol.empty()) {
      session_ = create(runtime, request, provider_options(runtime, request, input, batch_symbol));
    }
    shape_ = std::move(input.shape);
    info_.rows = shape_.size() == 3 ? static_cast<std::size_t>(shape_[1]) : 1;
    info_.features = static_cast<std::size_t>(shape_.back());
    scratch_ = AlignedFloats(request.max_batch * info_.rows * info_.features);
    info_.path = request.path;
    info_.input_name = std::move(input.name);
    info_.max_batch = request.max_batch;
    info_.executor = runtime.version + " " + request.provider;
    info_.exact = on_cpu;
    read_metadata();
    input_name_ = info_.input_name.c_str();
    run_options_.SetRunLogSeverityLevel(kLogLevel);
    add_inputs(scratch_.data(), info_.max_batch);
    prepare_outputs();
    if (!on_cpu) bind_outputs();
  }

  std::size_t warm_up(std::size_t runs, std::int64_t max_ns) override {
    // The wall clock of setup, not of the data plane.
    const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(max_ns);
    std::vector<float> scores(info_.max_batch * score_count());
    std::size_t done = 0;
    while (done < runs && std::chrono::steady_clock::now() < end) {
      make_up_rows();
      // Every size of batch in turn: the runtime plans its memory for each.
      const std::size_t count = done % info_.max_batch + 1;
      if (!run_batch(kScratch, count, {scores.data(), count * score_count()})) {
        throw SetupError(info_.path + ": warm-up", "every run to succeed",
                         "run " + std::to_string(done + 1) + ": " + error_);
      }
      ++done;
    }
    return done;
  }

  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept
      TICKWIRE_HOT override {
    assert(count >= 1 && count <= info_.max_batch && handle + count <= inputs_.size());
    assert(scores.size() == count * score_count());
    OrtStatus* status = nullptr;
    {
      const FlushDenormals flush;
      TICKWIRE_HOT_EXEMPT_BEGIN("ONNX Runtime's run allocates and its time is the model's")
      status = bindings_.empty()
                   ? api_.Run(session_, run_options_, &input_name_, &inputs_[handle + count - 1], 1,
                              output_names_.data(), output_names_.size(),
                              &output_values_[(count - 1) * output_names_.size()])
                   : run_bound(bindings_[count - 1], inputs_[handle + count - 1]);
      TICKWIRE_HOT_EXEMPT_END
    }
    if (status != nullptr) [[unlikely]]
      return fail_slow(status);
    float* score = scores.data();
    for (std::size_t i = 0; i < count; ++i) {
      for (const Part& part : parts_) {
        std::memcpy(score, part.data + i * part.count, part.count * sizeof(float));
        score += part.count;
      }
    }
    return true;
  }

  void interrupt() noexcept override {
    // The runtime looks at the flag between operators, those of a loop's body too.
    if (OrtStatus* const status = api_.RunOptionsSetTerminate(run_options_)) api_.ReleaseStatus(status);
  }

  [[nodiscard]] std::string_view last_error() const noexcept override { return error_; }

 protected:
  std::size_t add_binding(const float* inputs, std::span<float>) override {
    return add_inputs(inputs, info_.max_batch);
  }

 private:
  /// An output: where the runtime writes it, and its scores a block.
  struct Part {
    float* data;
    std::size_t count;
  };
  static constexpr std::size_t kScratch = 0;

  void read_metadata() {
    Ort::AllocatorWithDefaultOptions allocator;
    const Ort::ModelMetadata metadata = session_.GetModelMetadata();
    const auto look_up = [&](const char* key) {
      const auto value = metadata.LookupCustomMetadataMapAllocated(key, allocator);
      return value ? std::string(value.get()) : std::string();
    };
    info_.schema_json = look_up("tickwire.schema");
    info_.schema_sha256 = look_up("tickwire.schema.sha256");
  }

  [[nodiscard]] std::size_t score_count() const noexcept TICKWIRE_HOT { return info_.score_names.size(); }

  /// One value for each size of batch over the same memory: the handle is the first one's place.
  std::size_t add_inputs(const float* data, std::size_t max_count) {
    const std::size_t handle = inputs_.size();
    for (std::size_t count = 1; count <= max_count; ++count) {
      shape_[0] = static_cast<std::int64_t>(count);
      // The interface takes memory it may write; an input is only read.
      values_.push_back(Ort::Value::CreateTensor<float>(memory_, const_cast<float*>(data),
                                                        count * info_.rows * info_.features, shape_.data(),
                                                        shape_.size()));
      inputs_.push_back(values_.back());
    }
    return handle;
  }

  /// On a GPU: a binding for each size of batch, whose scores end in our memory.
  void bind_outputs() {
    const std::size_t outputs = output_names_.size();
    for (std::size_t count = 1; count <= info_.max_batch; ++count) {
      Ort::IoBinding& binding = bindings_.emplace_back(session_);
      for (std::size_t i = 0; i < outputs; ++i) {
        binding.BindOutput(output_names_[i], values_out_[(count - 1) * outputs + i]);
      }
    }
  }

  /// Binding an input of ours copies what it holds now to the device; the run waits for its stream.
  OrtStatus* run_bound(OrtIoBinding* binding, const OrtValue* input) noexcept {
    OrtStatus* const status = api_.BindInput(binding, input_name_, input);
    return status != nullptr ? status : api_.RunWithBinding(session_, run_options_, binding);
  }

  using Shapes = std::vector<std::vector<std::int64_t>>;

  /// The outputs' true shapes, from a run of `count` blocks into memory of the runtime's own.
  Shapes learn_shapes(std::size_t count) {
    Shapes shapes;
    try {
      for (const Ort::Value& value : session_.Run(run_options_, &input_name_, &values_[count - 1], 1,
                                                  output_names_.data(), output_names_.size())) {
        shapes.push_back(value.GetTensorTypeAndShapeInfo().GetShape());
      }
    } catch (const Ort::Exception& error) {
      throw SetupError(info_.path,
                       count == 1 ? "a model that runs on a row of zeros"
                                  : "a model that runs on a batch of " + std::to_string(count),
                       error.what());
    }
    return shapes;
  }

  /// Picks the float outputs and learns their true shapes: the declared ones are often open (converters
  /// leave [None, 3]). A shape that follows the data differs from the learnt one at some later run,
  /// which then fails: the warm-up finds it.
  void prepare_outputs() {
    const std::vector<Port> declared = ports(session_, false);
    for (const Port& port : declared) {
      if (port.is_float()) {
        names_.push_back(port.name);
      } else {
        const std::string advice = output_advice(port);
        info_.notes.push_back("output " + port.text() + " is left out: a score is float32" +
                              (advice.empty() ? "" : "; " + advice));
      }
    }
    if (names_.empty()) {
      throw SetupError(info_.path, "at least one output of float32",
                       declared.empty() ? "none" : text(declared) + outputs_advice(declared));
    }
    for (const std::string& name : names_) output_names_.push_back(name.c_str());

    const Shapes shapes = learn_shapes(1);
    std::size_t floats = 0;
    std::set<std::string> seen;
    for (std::size_t i = 0; i < names_.size(); ++i) {
      std::size_t count = 1;
      for (const std::int64_t size : shapes[i]) count *= static_cast<std::size_t>(size);
      const std::string found = names_[i] + " with " + std::to_string(count) + " values";
      if (count == 0) throw SetupError(info_.path, "outputs with at least one value", found);
      if (count > kMaxScores || info_.score_names.size() + count > kMaxScores) {
        throw SetupError(info_.path, "at most " + std::to_string(kMaxScores) + " scores in all", found);
      }
      for (std::size_t k = 0; k < count; ++k) {
        const std::string name = count == 1 ? names_[i] : names_[i] + "_" + std::to_string(k);
        if (!seen.insert(name).second)
          throw SetupError(info_.path, "scores of different names", "two of " + name);
        info_.score_names.push_back(name);
      }
      parts_.push_back({nullptr, count});
      floats += whole_lines(info_.max_batch * count);
    }

    outputs_ = AlignedFloats(floats);
    float* place = outputs_.data();
    for (Part& part : parts_) {
      part.data = place;
      place += whole_lines(info_.max_batch * part.count);
    }
    add_outputs(1, shapes);
    for (std::size_t count = 2; count <= info_.max_batch; ++count) {
      const Shapes of_batch = learn_shapes(count);
      for (std::size_t i = 0; i < parts_.size(); ++i) check_lines(i, shapes[i], of_batch[i], count);
      add_outputs(count, of_batch);
    }
  }

  void add_outputs(std::size_t count, const Shapes& shapes) {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      values_out_.push_back(Ort::Value::CreateTensor<float>(memory_, parts_[i].data, count * parts_[i].count,
                                                            shapes[i].data(), shapes[i].size()));
      output_values_.push_back(values_out_.back());
    }
  }

  /// An output of a batch is that of one block, `count` times.
  void check_lines(std::size_t output, std::vector<std::int64_t> one, const std::vector<std::int64_t>& found,
                   std::size_t count) const {
    const auto batch = static_cast<std::int64_t>(count);
    const bool has_batch = !one.empty() && one[0] == 1;
    if (has_batch) one[0] = batch;
    if (has_batch && one == found) return;
    std::string text = names_[output] + " of [";
    for (std::size_t i = 0; i < found.size(); ++i)
      text.append(i == 0 ? "" : ", ").append(std::to_string(found[i]));
    throw SetupError(info_.path, "outputs with one line a row of the batch",
                     text + "] for a batch of " + std::to_string(count) + "; set max_batch = 1");
  }

  static std::size_t whole_lines(std::size_t floats) {
    return (floats + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
  }

  /// Numbers in [-1, 1), other ones each time and the same ones in each process (xorshift64).
  void make_up_rows() noexcept {
    for (std::size_t i = 0; i < info_.max_batch * info_.rows * info_.features; ++i) {
      random_ ^= random_ << 13U;
      random_ ^= random_ >> 7U;
      random_ ^= random_ << 17U;
      scratch_.data()[i] = static_cast<float>(static_cast<std::int32_t>(random_ >> 32U)) * 0x1p-31F;
    }
  }

  [[gnu::noinline]] bool fail_slow(OrtStatus* status) noexcept TICKWIRE_HOT {
    TICKWIRE_HOT_EXEMPT_BEGIN("the status is the runtime's memory; it is given back here, once a failed run")
    const char* why = api_.GetErrorMessage(status);
    const std::size_t length = std::min(std::strlen(why), sizeof(error_) - 1);
    std::memcpy(error_, why, length);
    error_[length] = '\0';
    api_.ReleaseStatus(status);
    TICKWIRE_HOT_EXEMPT_END
    return false;
  }

  const OrtApi& api_;
  Ort::Session session_{nullptr};
  Ort::RunOptions run_options_;
  Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
  std::vector<std::int64_t> shape_;  // Of an input: [batch, F] or [batch, T, F].
  const char* input_name_ = nullptr;
  AlignedFloats scratch_;  // Input of the trial runs and of the warm-up: one batch.
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
  std::vector<Ort::Value> values_;  // One a bound input and size of batch, the scratch first.
  std::vector<const OrtValue*> inputs_;
  AlignedFloats outputs_;  // Each output on its own cache lines, with room for a whole batch.
  std::vector<std::string> names_;
  std::vector<const char*> output_names_;
  std::vector<Ort::Value> values_out_;  // Every output of a batch of one, of a batch of two …
  std::vector<OrtValue*> output_values_;
  std::vector<Ort::IoBinding> bindings_;  // One a size of batch; none on the CPU.
  std::vector<Part> parts_;
  char error_[512] = "";
};

}  // namespace

Made load_ort_model(const ModelRequest& request) {
  const OrtRuntime& runtime = open_ort(request.library);
  Ort::InitApi(runtime.api);
  try {
    return std::make_unique<OrtModel>(runtime, request);
  } catch (const Ort::Exception& error) {
    throw SetupError(request.path, "a model that ONNX Runtime " + runtime.version + " accepts", error.what());
  }
}

void optimize_ort_model(const ModelRequest& request, const std::string& out, const std::string& format) {
  if (format != "onnx" && format != "ort") throw SetupError("format", "onnx or ort", format);
  if (request.provider == "tensorrt") {
    throw SetupError("provider", "cpu or cuda, whose graphs can be written", request.provider);
  }
  const OrtRuntime& runtime = open_ort(request.library);
  Ort::InitApi(runtime.api);
  const FlushDenormals flush;
  const Port input = check_input(request, create(runtime, request, session_options("")));
  Ort::SessionOptions options = provider_options(runtime, request, input, "");
  options.SetOptimizedModelFilePath(out.c_str());
  options.AddConfigEntry(kOrtSessionOptionsConfigSaveModelFormat, format == "ort" ? "ORT" : "ONNX");
  create(runtime, request, options);
}

}  // namespace tickwire::infer
