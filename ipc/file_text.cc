#include "shoal/ipc/file_text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstddef>

#include "shoal/ipc/descriptor.h"

namespace shoal {

std::string text_of_file(const std::string& path) {
  std::string text;
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return text;
  for (char part[4096];;) {
    const ssize_t size = read(file.get(), part, sizeof part);
    if (size > 0)
      text.append(part, static_cast<std::size_t>(size));
    else if (size == 0 || errno != EINTR)
      return text;
  }
}

std::string first_line_of_file(const std::string& path) {
  const std::string text = text_of_file(path);
  return text.substr(0, text.find('\n'));
}

std::optional<std::uint64_t> number_in_file(const std::string& path,
                                            std::string_view key, int base) {
  for (const std::string& line : lines_of_file(path))
    if (line.starts_with(key))
      return strtoull(line.c_str() + key.size(), nullptr, base);
  return std::nullopt;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
  return parts;
}

}  // namespace shoal
