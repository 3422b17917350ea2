#include "shoal/ipc/type_name.h"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>

namespace shoal {
namespace {

void replace_all(std::string& text, std::string_view from,
                 std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != text.npos;
       at += to.size())
    text.replace(at, from.size(), to);
}

// Removes ", std::allocator<…>" with all between its brackets.
void remove_argument(std::string& text, const std::string& name) {
  const std::string start = ", std::" + name + "<";
  for (std::size_t at = 0; (at = text.find(start, at)) != text.npos;) {
    std::size_t end = at + start.size();
    for (int depth = 1; depth > 0 && end < text.size(); ++end)
      depth += text[end] == '<' ? 1 : text[end] == '>' ? -1 : 0;
    text.erase(at, end - at);
  }
}

}  // namespace

std::string type_name(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), std::free);
  std::string name = demangled ? demangled.get() : type.name();
  replace_all(name, "std::__cxx11::", "std::");
  for (const char* argument : {"allocator", "char_traits", "less", "hash",
                               "equal_to", "default_delete"})
    remove_argument(name, argument);
  replace_all(name, " >", ">");
  replace_all(name, "std::basic_string<char>", "std::string");
  return name;
}

namespace layout {

std::uint64_t hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts)
    text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string heading(const std::string& name, std::size_t size,
                    std::size_t alignment) {
  return name + " (" + std::to_string(size) + " bytes, align " +
         std::to_string(alignment) + ")";
}

}  // namespace layout
}  // namespace shoal
