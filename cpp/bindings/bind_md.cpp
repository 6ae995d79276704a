#include "bind_md.hpp"

#include "names.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/venue/itch/replay_source.hpp"
#include "tickwire/venue/itch/session_day.hpp"
#include "tickwire/venue/venues.hpp"

namespace tickwire::bindings {

namespace py = pybind11;

void bind_md(py::module_& m) {
  m.def("check_day_file", &venue::itch::check_day_file, py::arg("path"));
  m.def("is_pcap", &md::is_pcap, py::arg("path"));
  m.def("new_york_midnight", &venue::itch::new_york_midnight, py::arg("utc_ns"));
  m.attr("VENUES") = names_tuple(venue::kVenues);
}

}  // namespace tickwire::bindings
