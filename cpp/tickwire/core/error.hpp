#pragma once

#include <stdexcept>
#include <string>

namespace tickwire {

/// Thrown by setup code when the configuration or a file it names cannot be used. The message says
/// where, what was found and what was expected: `features[2].window_ns: expected a positive
/// integer, found -5`. Never thrown once the data plane runs.
class SetupError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  SetupError(const std::string& where, const std::string& expected, const std::string& found)
      : std::runtime_error(where + ": expected " + expected + ", found " + found) {}
};

}  // namespace tickwire
