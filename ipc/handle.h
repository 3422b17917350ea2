#pragma once
// How a handle (Queue, Lock, Value, Array) travels in a Message: as a
// reference to the object, with its descriptors where the receiver needs them
// (passage.h).

#include <memory>
#include <string>
#include <utility>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/passage.h"

namespace shoal {

// Befriended by the handles.
struct HandleAccess {
  template <class H>
  static const std::shared_ptr<Object>& object(const H& handle) {
    return handle.object_;
  }
  template <class H>
  static H make(std::shared_ptr<Object> object) {
    return H(std::move(object));
  }
  template <class H>
  static Spec spec() {
    return H::object_spec();
  }
};

// The base of every HandleTraits<H>.
template <class H>
struct ObjectHandleTraits {
  static HandleRef reference(const H& handle, Passage* passage) {
    const auto& object = HandleAccess::object(handle);
    if (object == nullptr)
      throw Closed("shoal: a handle that was moved from cannot be sent");
    HandleRef reference = passage::refer_to(*object);
    if (passage != nullptr) passage->carry(*object, reference);
    return reference;
  }

  // Throws Error when this process cannot reach the object, TypeMismatch.
  static H resolve(const HandleRef& reference, Arrival* arrival) {
    return HandleAccess::make<H>(
        passage::receive(reference, arrival, HandleAccess::spec<H>()));
  }
};

}  // namespace shoal
