#pragma once

/// Names that Python sees: of a list of texts, or of entries that have one.

#include <pybind11/pybind11.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

namespace tickwire::bindings {

template <typename List>
[[nodiscard]] pybind11::tuple names_tuple(const List& list) {
  pybind11::tuple names(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    if constexpr (std::is_convertible_v<decltype(list[i]), std::string_view>) {
      names[i] = pybind11::str(std::string(list[i]));
    } else {
      names[i] = pybind11::str(std::string(list[i].name));
    }
  }
  return names;
}

}  // namespace tickwire::bindings
