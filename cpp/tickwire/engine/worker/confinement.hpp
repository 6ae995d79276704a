#pragma once

/// What a worker gives up: it scores, and a model is somebody's code. Linux only, on x86-64 and AArch64.
///
/// Before its model is read, the network: a namespace that has none. Once its model is loaded and warm, new
/// privileges, and by a filter for all of its threads most system calls. There are three kinds of them:
///
/// - Those of a scoring loop: memory, waiting, clocks, descriptors it has, its own end. They go on as ever.
/// - Those that nothing in a scoring loop would try, but somebody who took it over would: another program, a
///   socket, a look into another process, the kernel's own doors. They end the process by SIGSYS, because
///   what tries them is not to score another row; the engine says so, counts it, and starts another.
/// - All others fail with EPERM. A library may try one in passing, a file of /sys for instance, and go on
///   without; a row lost to that would help nobody.
///
/// No page becomes executable any more, and no file is opened. It is for the provider cpu: drivers of other
/// providers open devices and start threads whenever they like.

#include <string>

namespace tickwire::engine {

/// While the process has one thread. Empty, or why not.
[[nodiscard]] std::string leave_network();

/// All threads of this process, from now on and for good. Empty, or why not: no call is filtered then. The
/// run time of a sanitizer maps and reads what it likes, so such a build has no filter.
[[nodiscard]] std::string confine();

}  // namespace tickwire::engine
