#pragma once

/// `--name value` for the programs of this folder.

#include <charconv>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tickwire::bench {

class Options {
 public:
  /// `defaults` names every option there is.
  Options(int argc, char** argv, int first, std::map<std::string, std::string> defaults)
      : values_(std::move(defaults)) {
    for (int i = first; i < argc; i += 2) {
      const std::string_view name = argv[i];
      const auto known = values_.find(std::string(name.substr(name.starts_with("--") ? 2 : 0)));
      if (known == values_.end() || i + 1 == argc) {
        std::string all;
        for (const auto& [option, value] : values_) all += " --" + option + " (" + value + ")";
        throw std::runtime_error(std::string(name) + ": expected an option and its value, of" + all);
      }
      known->second = argv[i + 1];
    }
  }

  [[nodiscard]] const std::string& text(const std::string& name) const { return values_.at(name); }

  template <typename T>
  [[nodiscard]] T number(const std::string& name) const {
    const std::string& value = values_.at(name);
    T result{};
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error != std::errc{} || end != value.data() + value.size()) {
      throw std::runtime_error("--" + name + ": expected a number, found " + value);
    }
    return result;
  }

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace tickwire::bench
