#pragma once
// Small files of /proc and /sys as text, and its parts. No stream: with a
// global locale other than the classic one each takes a lock of libstdc++,
// which a forked child may find held.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {

// What can be read of it; "" if nothing can.
std::string text_of_file(const std::string& path);

// "a,,b" has three parts, and "a," one.
std::vector<std::string> split(std::string_view text, char separator);

inline std::vector<std::string> lines_of_file(const std::string& path) {
  return split(text_of_file(path), '\n');
}

// "" if there is none.
std::string first_line_of_file(const std::string& path);

// What stands behind `key` at the start of a line, as in "MemFree:  123 kB".
std::optional<std::uint64_t> number_in_file(const std::string& path,
                                            std::string_view key,
                                            int base = 10);

}  // namespace shoal
