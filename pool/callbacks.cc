#include "shoal/pool/callbacks.h"

namespace shoal {

void Callback::refuse(const std::type_info& result) const {
  const auto name = [](const std::type_info& type) {
    return type == typeid(void) ? std::string("nothing") : type_name(type);
  };
  throw std::invalid_argument("shoal: the callback takes " + name(*type_) +
                              ", the result is " + name(result) +
                              "; let it take that by value or const&");
}

std::exception_ptr Callbacks::operator()(
    const void* result, std::exception_ptr error) const noexcept {
  try {
    if (error == nullptr) callback(result);
  } catch (...) {
    error = std::current_exception();
  }
  try {
    if (error != nullptr && error_callback) error_callback(error);
  } catch (...) {
    error = std::current_exception();
  }
  return error;
}

}  // namespace shoal
