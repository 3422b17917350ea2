#pragma once
// Name: of an object, unlinked when the test ends, however it does.
//
//   const Name name("orders");
//   auto orders = shoal::Queue<Order>::create(name, 3);

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "tests/support/residue.h"

namespace shoal::support {

class Name {
 public:
  explicit Name(std::string_view what) : text_(unique_name(what)) {}
  Name(const Name&) = delete;
  Name& operator=(const Name&) = delete;
  ~Name() {
    std::error_code gone;
    std::filesystem::remove(path(), gone);
  }

  operator std::string_view() const { return text_; }
  const std::string& text() const { return text_; }
  std::string path() const { return "/dev/shm/shoal." + text_; }

 private:
  std::string text_;
};

}  // namespace shoal::support
