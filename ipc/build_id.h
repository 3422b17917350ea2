#pragma once
// What tells one build of a program or library from another: the note that the
// linker writes (--build-id), in memory and in the file.

#include <link.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace shoal::build_id {

// dl_iterate_phdr(), during which no thread forks: what is forked in the middle
// of it by another one finds the loader's lock taken for ever. (glibc 2.36
// makes its other locks new in a child, not this one.)
int for_each_module(int (*callback)(dl_phdr_info*, std::size_t, void*),
                    void* argument);

// Of a loaded module; empty when it was linked without one.
std::string_view of_module(const dl_phdr_info& info);

// Of an ELF file of this machine's kind; empty when it has none, or is no such
// file. Throws std::system_error when it cannot be read.
std::string of_file(const std::string& path);

// Whether a file is what this process runs: the same segments and build-id.
// Throws std::system_error when it cannot be read.
bool is_this_program(const std::string& path);

}  // namespace shoal::build_id
