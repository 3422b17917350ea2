#include "shoal/ipc/errors.h"

#include <system_error>

namespace shoal {

void throw_system_error(int error, const char* call, const std::string& name,
                        std::uint64_t size) {
  std::string what = call;
  if (!name.empty() || size != 0) {
    what += '(' + name;
    if (size != 0)
      what += (name.empty() ? "" : ", ") + std::to_string(size) + " bytes";
    what += ')';
  }
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace shoal
